"""Entry point of `relay-supervisor`.

Imports nothing at module level: the fork server imports the main module again for every worker, which must not
get the supervisor's libraries that way.
"""


def main() -> None:
    """Run the command line."""
    from relay_supervisor.commands.cli import cli

    cli()


if __name__ == "__main__":
    main()
