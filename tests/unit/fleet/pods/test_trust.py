"""Certificates and tokens of the cluster that are replaced while a client runs, as a kubelet replaces them in a Pod."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from relay_common.simulation.camera.certs import make_certificates
from relay_supervisor.fleet.pods.api import PODS, ApiAway, ApiRefused, ClusterApi
from relay_supervisor.fleet.pods.trust import RenewedContext
from tests.fixtures.scripted_http import ScriptedServer, response

JSON = "Content-Type: application/json"
NONE = response("200 OK", b'{"items": [], "metadata": {"resourceVersion": "7"}}', JSON)
CLOSED = response("200 OK", b'{"items": [], "metadata": {"resourceVersion": "7"}}', JSON, "Connection: close")


class Account:
    """A service account's folder: `ca.crt` and `token` lead through `..data`, which is replaced as a whole."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._made = folder, 0
        for name in ("ca.crt", "token"):
            (folder / name).symlink_to(f"..data/{name}")

    def replace(self, authority: bytes, token: str) -> None:
        self._made += 1
        data, link = self.folder / f"..{self._made}", self.folder / "..next"
        data.mkdir()
        (data / "ca.crt").write_bytes(authority)
        (data / "token").write_text(token)
        link.symlink_to(data.name)
        link.replace(self.folder / "..data")


class Rotated:
    """An API server, whose authority is another one from time to time, and a client of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.context = folder, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        account = folder / "serviceaccount"
        account.mkdir()
        self.account, self.server = Account(account), ScriptedServer(self.context)

    def rotate(self) -> bytes:
        """Serve with a certificate of a new authority, whose own is returned."""
        key_file, authority = make_certificates(self.folder)
        self.context.load_cert_chain(key_file)
        return authority.read_bytes()

    def client(self, monkeypatch: pytest.MonkeyPatch) -> ClusterApi:
        cluster = {
            "server": f"https://127.0.0.1:{self.server.port}",
            "certificate-authority": str(self.account.folder / "ca.crt"),
        }
        user = {"tokenFile": str(self.account.folder / "token")}
        names = {"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}
        named = {"clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "u", "user": user}]}
        (self.folder / "kubeconfig").write_text(json.dumps(names | named))
        monkeypatch.setenv("KUBECONFIG", str(self.folder / "kubeconfig"))
        return ClusterApi("cameras")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Rotated]:
    rotated = Rotated(tmp_path)
    async with rotated.server:
        yield rotated


async def test_a_rotated_authority_is_taken_up_and_the_last_one_is_not_trusted_any_more(
    world: Rotated, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.server.answer = lambda line, headers, body: CLOSED
    first = world.rotate()
    world.account.replace(first, "one")
    api = world.client(monkeypatch)
    try:
        await api.list(PODS, {})
        for _ in range(3):
            now = world.rotate()
            with pytest.raises(ApiAway, match="certificate is not trusted"):
                await api.list(PODS, {})
            world.account.replace(now, "one")
            assert await api.list(PODS, {}) == ([], "7")
        world.account.replace(first, "one")
        with pytest.raises(ApiAway, match="certificate is not trusted"):
            await api.list(PODS, {})
    finally:
        await api.aclose()


async def test_a_watch_goes_on_when_the_authority_changes(world: Rotated, monkeypatch: pytest.MonkeyPatch) -> None:
    event = json.dumps({"type": "ADDED", "object": {"metadata": {"name": "one", "resourceVersion": "8"}}}).encode()
    watched = response("200 OK", event + b"\n", JSON)
    world.server.answer = lambda line, headers, body: watched if "watch=true" in line else NONE
    world.account.replace(world.rotate(), "one")
    api = world.client(monkeypatch)
    try:
        following = aiter(api.watch(PODS, {}, "7"))
        assert (await anext(following))[0] == "ADDED"
        world.account.replace(world.rotate(), "one")
        assert await api.list(PODS, {}) == ([], "7")
        assert (await anext(following))[0] == "ADDED"
    finally:
        await api.aclose()


async def test_a_rotated_token_is_read_when_the_last_one_is_refused(
    world: Rotated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes replaces it when four fifths of an hour have passed, and takes the last one until it has expired."""
    good, asked = ["one"], []

    def answer(line: str, headers: dict[str, str], body: bytes) -> bytes:
        asked.append(headers["authorization"])
        refused = response("401 Unauthorized", b'{"kind": "Status", "code": 401, "message": "Unauthorized"}', JSON)
        return NONE if headers["authorization"] == f"Bearer {good[0]}" else refused

    world.server.answer, authority = answer, world.rotate()
    world.account.replace(authority, "one")
    api = world.client(monkeypatch)
    try:
        await api.list(PODS, {})
        good[0] = "two"
        with pytest.raises(ApiRefused, match="Unauthorized"):
            await api.list(PODS, {})
        world.account.replace(authority, "two")
        assert await api.list(PODS, {}) == ([], "7")
        assert asked[-1] == "Bearer two"
    finally:
        await api.aclose()


def fails(error: Exception) -> Callable[[], ssl.SSLContext]:
    def made() -> ssl.SSLContext:
        raise error

    return made


def test_a_file_that_cannot_be_used_leaves_the_last_certificates_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, before = tmp_path / "ca.crt", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    file.write_text("one")
    trust = RenewedContext([str(file)], lambda: before)
    assert not trust.renewed()
    for trouble in (OSError("no such file"), ssl.SSLError("no start line")):
        file.write_text(file.read_text() + "+")
        trust._make = fails(trouble)
        assert not trust.renewed()
        assert not trust.renewed()
        assert trust.context is before
    file.unlink()
    assert not trust.renewed()
    assert [one.levelname for one in caplog.records] == ["WARNING"] * 3, "once for each change"
    file.write_text("two")
    trust._make = lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert trust.renewed()
    assert trust.context is not before
