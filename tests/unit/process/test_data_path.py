"""Which data path is used: what the setting says, and what is there."""

from __future__ import annotations

from collections.abc import Iterator

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
