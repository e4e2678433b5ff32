"""Coverage-guided fuzzing with atheris.

    python -m tests.fuzz TARGET [--seconds 60] [--runs N]
    python -m tests.fuzz all --seconds 30 --keep /tmp/fuzz

With --keep, the inputs that reached new code are kept between runs, in a directory for each target. A finding is
written to the directory it was started in (`crash-…`); put it into `tests/fuzz/corpus/TARGET/` together with the fix,
and it is tried in every test run from then on.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import click

from tests.fuzz.pieces import OF_THE_SUPERVISOR

MEMORY_LIMIT = 512
"""MB that a target may use: parsers promise bounded memory."""


@click.command()
@click.argument("target")
@click.option("--seconds", default=60, show_default=True, help="Time for each target.")
@click.option("--runs", default=0, help="Inputs for each target; 0: as many as fit the time.")
@click.option("--seed", default=0, help="Of the mutations; 0: another one each time.")
@click.option("--keep", type=click.Path(path_type=Path), help="Directory for the inputs that reached new code.")
def main(target: str, seconds: int, runs: int, seed: int, keep: Path | None) -> None:
    """Fuzz one target, or all of them one after another."""
    if target == "all":
        from tests.fuzz.targets import TARGETS

        failed = [name for name in TARGETS if _child(name, seconds, runs, seed, keep)]
        sys.exit(f"findings in: {', '.join(failed)}" if failed else 0)
    if keep is not None:
        (keep / target).mkdir(parents=True, exist_ok=True)
        fuzz(target, seconds, runs, seed, keep / target)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as corpus:
        fuzz(target, seconds, runs, seed, Path(corpus))


def _child(name: str, seconds: int, runs: int, seed: int, keep: Path | None) -> int:
    options = ["--seconds", str(seconds), "--runs", str(runs), "--seed", str(seed)]
    options += ["--keep", str(keep)] if keep is not None else []
    command = [sys.executable, "-m", "tests.fuzz", name, *options]
    return subprocess.run(command, check=False).returncode


def instrumented(*, supervisor: bool) -> None:
    """Import all targets so that their code, and the supervisor's on request, gives coverage.

    Nothing of it may have been imported before; instrumenting the supervisor takes seconds.
    """
    import atheris

    packages = ["relay_worker", "relay_common", *(["relay_supervisor"] if supervisor else [])]
    with atheris.instrument_imports(include=packages):
        import tests.fuzz.seeds
        import tests.fuzz.targets  # noqa: F401


def fuzz(name: str, seconds: int, runs: int, seed: int, corpus: Path) -> None:
    """Fuzz the target `name`, from its seeds and from the inputs in `corpus`; does not return."""
    import atheris

    instrumented(supervisor=name in OF_THE_SUPERVISOR)
    from tests.fuzz.seeds import seeds
    from tests.fuzz.targets import TARGETS

    for number, data in enumerate(seeds(name)):
        (corpus / f"seed-{number}").write_bytes(data)
    options = ["-max_len=4096", f"-rss_limit_mb={MEMORY_LIMIT}", "-timeout=5", "-print_final_stats=1"]
    options += [f"-max_total_time={seconds}"] if seconds else []
    options += [f"-runs={runs}"] if runs else []
    options += [f"-seed={seed}"] if seed else []
    atheris.Setup([sys.argv[0], *options, str(corpus)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
