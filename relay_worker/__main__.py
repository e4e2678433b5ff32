"""Entry point of `relay-worker`: one camera's pipeline alone, for debugging.

Imports nothing at module level; see relay_supervisor/__main__.py.
"""


def main() -> None:
    """Run the command line."""
    from relay_worker.debug import cli

    cli()


if __name__ == "__main__":
    main()
