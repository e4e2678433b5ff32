"""The compiled code under AddressSanitizer and UndefinedBehaviorSanitizer, where a compiler can build it so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKETS = 1000

_RUN = """
import importlib.util, sys
name, path = "relay_worker.native._runs", sys.argv.pop(1)
spec = importlib.util.spec_from_file_location(name, path)
sys.modules[name] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from tests.fuzz import data_paths
assert data_paths.native._found.__file__ == path, data_paths.native._found
sys.exit(data_paths.main())
"""


def build(source: Path, target: Path) -> None:
    """Compile with both sanitizers; skipped where that cannot be done."""
    compiler = shutil.which("gcc")
    include = sysconfig.get_paths()["include"]
    if compiler is None or not (Path(include) / "Python.h").exists():
        pytest.skip("there is no gcc, or Python's headers are missing")
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g", "-Wall", "-Wextra", "-Werror"]
    command = [compiler, *checks, "-fPIC", "-shared", f"-I{include}", str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode and "cannot find" in done.stderr:
        pytest.skip("gcc has no sanitizers here")
    assert done.returncode == 0, done.stderr


def run(module: Path, packets: int) -> subprocess.CompletedProcess[str]:
    """The corpus, and so many packets of made streams, through both data paths."""
    library = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    # With malloc under every object, reading past the end of one is an error; CPython does not free all at its end.
    environ = os.environ | {"LD_PRELOAD": library.stdout.strip(), "PYTHONMALLOC": "malloc", "PYTHONPATH": str(ROOT)}
    environ |= {"ASAN_OPTIONS": "detect_leaks=0:handle_segv=0", "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-c", _RUN, str(module), "--packets", str(packets), "--seed", "7000000"]
    return subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)


def test_no_error_of_memory_over_the_corpus(tmp_path: Path) -> None:
    module = tmp_path / "_runs.abi3.so"
    build(ROOT / "relay_worker/native/runs.c", module)
    done = run(module, PACKETS)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "no difference" in done.stdout


def test_a_read_beyond_the_end_is_found(tmp_path: Path) -> None:
    source = (ROOT / "relay_worker/native/runs.c").read_text()
    checked = "if (size < 3 || size > most"
    assert checked in source
    wrong = tmp_path / "runs.c"
    # Changes no result, so that no comparison would notice.
    read = "((volatile const uint8_t *)at)[size + 40] == 7 && size > 70000"
    wrong.write_text(source.replace(checked, f"if (({read}) || size < 3 || size > most"))
    module = tmp_path / "_runs.abi3.so"
    build(wrong, module)
    done = run(module, 100)
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr
    assert "pass_fragments" in done.stderr
