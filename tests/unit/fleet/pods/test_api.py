"""What the API server, or a proxy before it, may answer; and that who may not command does not even ask."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from relay_common.errors import ConfigError
from relay_supervisor.fleet.pods import api as api_module
from relay_supervisor.fleet.pods.api import PODS, ApiAway, ClusterApi
from tests.fixtures.scripted_http import ScriptedServer, response

Call = Callable[[ClusterApi], Awaitable[object]]


def kubeconfig(port: int, user: dict[str, Any]) -> str:
    names = {"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}
    server = {"server": f"http://127.0.0.1:{port}"}
    return json.dumps(names | {"clusters": [{"name": "c", "cluster": server}], "users": [{"name": "u", "user": user}]})


def configure(directory: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config = directory / "kubeconfig"
    config.write_text(kubeconfig(port, {}))
    monkeypatch.setenv("KUBECONFIG", str(config))


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        configure(tmp_path, server.port, monkeypatch)
        yield server


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("clusters: [", "no kubeconfig"),
        ("[1]", "no kubeconfig"),
        ("null", "no kubeconfig"),
        ("{}", "has no 'clusters'"),
        ('{"clusters": [], "users": [], "contexts": []}', "No current context"),
        (kubeconfig(9, {"auth-provider": {"name": "gcp"}}), "auth-provider not supported"),
        (kubeconfig(9, {"client-certificate": "/nowhere", "client-key": "/nowhere"}), "certificates cannot be used"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, said: str
) -> None:
    (tmp_path / "kubeconfig").write_text(config)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with pytest.raises(ConfigError, match=said):
        ClusterApi("cameras")


async def test_who_may_not_command_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    configure(tmp_path, unused_tcp_port, monkeypatch)
    may_change = [False]
    api = ClusterApi("cameras", lambda: may_change[0])
    try:
        for change in (
            lambda: api.create(PODS, {"metadata": {"name": "one"}}),
            lambda: api.patch(PODS, "one", {}),
            lambda: api.delete(PODS, "one", 0),
        ):
            with pytest.raises(ApiAway, match="has not confirmed who commands"):
                await change()
        may_change[0] = True
        with pytest.raises(ApiAway, match="does not answer"):
            await api.delete(PODS, "one", 0)
    finally:
        await api.aclose()


CALLS: dict[str, Call] = {
    "create": lambda api: api.create(PODS, {"metadata": {"name": "one"}}),
    "patch": lambda api: api.patch(PODS, "one", {}),
    "list": lambda api: api.list(PODS, {}),
    "may": lambda api: api.may("list", "pods"),
    "watch": lambda api: anext(aiter(api.watch(PODS, {}, "7"))),
}
JSON = "Content-Type: application/json"
ODD = {
    "an error without a type": response("503 Service Unavailable", b"busy"),
    "an error that is no Status": response("503 Service Unavailable", b"<html>", JSON),
    "too many requests": response("429 Too Many Requests", b"later", "Retry-After: 1"),
    "a page": response("200 OK", b"<html>", "Content-Type: text/html"),
    "nothing as JSON": response("200 OK", b"null", JSON),
    "a list as JSON": response("200 OK", b"[1]", JSON),
    "no object": response("200 OK", b"{}", JSON),
}


@pytest.mark.parametrize("verb", CALLS)
async def test_whatever_answers_in_its_place_counts_as_its_absence(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Anything else would end the loop that asked: the next try of who commands would come too late."""
    monkeypatch.setattr(api_module, "_APART", 0.0)
    api = ClusterApi("cameras")
    try:
        for odd, answer in ODD.items():
            if (odd, verb) == ("no object", "may"):
                continue  # which says no
            server.answer = lambda line, headers, body, answer=answer: answer
            try:
                await CALLS[verb](api)
            except ApiAway:
                continue
            except Exception as error:
                pytest.fail(f"{odd}: {error!r}")
            pytest.fail(f"{odd}: no error")
    finally:
        await api.aclose()


async def test_of_one_name_only_that_object_is_asked_for(server: ScriptedServer) -> None:
    body = b'{"items": [], "metadata": {"resourceVersion": "7"}}'
    server.answer = lambda line, headers, body_: response("200 OK", body, JSON)
    api = ClusterApi("cameras")
    try:
        assert await api.list(PODS, {}, "one") == ([], "7")
        assert await api.list(PODS, {"a": "b"}) == ([], "7")
    finally:
        await api.aclose()
    assert [line.partition("?")[2] for line, _, _ in server.requests] == [
        "fieldSelector=metadata.name%3Done",
        "labelSelector=a%3Db",
    ]


async def test_that_it_does_not_answer_in_time_is_said_in_the_same_words_each_time(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "TIMEOUT", 0.2)
    server.answer = lambda line, headers, body: None
    api = ClusterApi("cameras")
    monkeypatch.setattr(api_module, "TIMEOUT", 10.0)  # so that the connection's time-out is first
    try:
        with pytest.raises(ApiAway, match=r"^the cluster's API server does not answer in time$"):
            await api.list(PODS, {})
    finally:
        await api.aclose()


async def test_a_watch_that_ends_at_once_is_begun_anew_after_a_pause(server: ScriptedServer) -> None:
    server.answer = lambda line, headers, body: response("200 OK", b"", JSON)
    api, loop = ClusterApi("cameras"), asyncio.get_running_loop()
    following = asyncio.ensure_future(CALLS["watch"](api))
    began = loop.time()
    try:
        while len(server.requests) < 3:
            await asyncio.sleep(0.01)
        assert loop.time() - began > 1.5
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        await api.aclose()
