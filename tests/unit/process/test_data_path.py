"""Which data path is used: what the setting says, and what is there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_common.config import CloudflareConfig, Config, NestConfig, WorkersConfig
from relay_common.errors import ConfigError
from relay_common.secrets import Secret
from relay_supervisor import prerequisites
from relay_supervisor.checks import local
from relay_worker import native
from relay_worker.process import data_path

MISSING = "it was installed without a C compiler"


@pytest.fixture(autouse=True)
def chosen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(native.VARIABLE, raising=False)  # the suite's own
    yield
    monkeypatch.undo()
    native.choose("auto")


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an installation without a compiler."""
    monkeypatch.setattr(native, "_found", None)
    monkeypatch.setattr(native, "_why_not", MISSING)


@pytest.fixture
def present(monkeypatch: pytest.MonkeyPatch) -> None:
    if native.missing():
        pytest.skip(native.missing())


def configured(setting: native.Setting) -> Config:
    nest = NestConfig(project_id="p", client_id="c", client_secret=Secret("s"), refresh_token=Secret("r"))
    cloudflare = CloudflareConfig(app_id="a", app_secret=Secret("s"))
    return Config(nest=[nest], cloudflare=cloudflare, workers=WorkersConfig(data_path=setting))


def refused(setting: native.Setting) -> list[str]:
    return [error.message for key, error in prerequisites.refusals(configured(setting)) if key == "workers.data_path"]


@pytest.mark.usefixtures("absent")
def test_without_a_compiler_all_is_python_and_compiled_refuses_to_start() -> None:
    for setting in ("auto", "python"):
        native.choose(setting)
        assert (native.words(), native.compiled(), refused(setting)) == ("python", None, [])
        (finding,) = local.packets(configured(setting))
        assert finding.text == f"data path of workers: python ({MISSING})"
    assert data_path.lost().startswith(f"there is no compiled data path ({MISSING}): ")
    with pytest.raises(ConfigError) as raised:
        native.choose("compiled")
    assert raised.value.message == f"workers.data_path is compiled, and the compiled data path is not there: {MISSING}"
    assert "C compiler" in raised.value.hint
    assert refused("compiled") == [raised.value.message]
    assert local.packets(configured("compiled")) == []


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An extension module in the place of this installation's, as a process finds it that has loaded none."""
    monkeypatch.setattr(native, "__path__", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, native._EXTENSION, raising=False)
    monkeypatch.setenv("RELAY_CLOUDFLARE_APP_SECRET", "hush")
    file = tmp_path / "_runs.abi3.so"
    file.write_bytes(b"\x7fELF")
    return file


def test_a_file_that_kills_who_loads_it_is_as_none(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It killed supervisor, fork server and `check`, each at its start, where Python does as well."""
    found, why = native._load()
    assert (found, why.rpartition(": ")[2]) == (None, "file too short"), "that is an error like others"
    trial = "import os, signal\nos.kill(os.getpid(), signal.{})"
    monkeypatch.setattr(native, "_TRIAL", trial.format("SIGILL"))
    assert native._load() == (None, "loading it ends a process by SIGILL")
    monkeypatch.setattr(native, "_TRIAL", trial.format("SIGKILL"))
    assert native._load() == (found, why), "somebody else's doing"
    monkeypatch.setattr(native, "_TRIAL", "import os\nif 'hush' in os.environ.values(): os.abort()")
    assert native._load() == (found, why), "a core may be kept"
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert native._load() == (found, why)


@pytest.mark.usefixtures("present")
def test_a_file_that_was_cut_short_is_as_none(file: Path) -> None:
    assert native._found is not None
    file.write_bytes(Path(str(vars(native._found)["__file__"])).read_bytes()[:4096])
    assert native._load() == (None, "loading it ends a process by SIGBUS")


@pytest.mark.usefixtures("present")
def test_with_one_the_setting_decides() -> None:
    for setting, words in (("python", "python"), ("compiled", "compiled"), ("auto", "compiled")):
        native.choose(setting)
        assert (native.words(), native.compiled() is not None) == (words, words == "compiled")
        assert refused(setting) == []
    assert data_path.described("auto") == data_path.described("compiled") == "compiled"
    assert data_path.described("python") == "python (the compiled one is there)"


@pytest.mark.usefixtures("present")
def test_the_environment_decides_what_the_setting_leaves_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_WORKERS_DATA_PATH", "python")
    assert data_path.described("auto").startswith("python"), "also for `debug`, which reads no configuration"
    assert data_path.described("compiled") == "compiled"
    monkeypatch.setenv("RELAY_WORKERS_DATA_PATH", "compiled")
    native.choose("python")
    assert native.words() == "python", "a worker that was put on the Python stays there"
    monkeypatch.setenv("RELAY_WORKERS_DATA_PATH", "fast")  # which the configuration refuses, where there is one
    native.choose("auto")
    assert native.words() == "compiled"
