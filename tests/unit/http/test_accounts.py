"""Two accounts of one process, over real sockets: what is of all of them, and what is each one's own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click
import httpx
import msgspec
import pytest
from click.testing import CliRunner

from relay_common.causes import Cause
from relay_supervisor.commands.cli import cli
from relay_supervisor.commands.status import render
from relay_supervisor.http import accounts, hosting
from relay_supervisor.status.model import RelayStatus, SeatStatus
from relay_supervisor.status.verdict import verdict
from tests.fixtures.accounts_world import BEARER, TOKEN, accounts_world


def decoded(answer: httpx.Response) -> RelayStatus:
    return msgspec.json.decode(answer.content, type=RelayStatus)


async def test_all_accounts_are_shown_as_one(tmp_path: Path) -> None:
    async with accounts_world(tmp_path) as made:
        assert (await made.client.get("/api/stats")).status_code == 401
        found = decoded(await made.client.get("/api/stats", headers=BEARER))
        assert [(one.name, one.path, one.holder, one.here, one.live) for one in found.accounts] == [
            ("home", "/accounts/home", "a", True, 2),
            ("shop", "/accounts/shop", "a", True, 2),
        ]
        assert {(one.id, one.account) for one in found.cameras} == {
            (f"{name}cam0000{number}", name) for name in made.relays for number in (0, 1)
        }
        assert (found.totals.cameras, found.totals.connected, len(found.budgets)) == (4, 4, 2)
        assert [one.name for one in found.budgets] == ["home", "shop"]
        assert found.counters["accounts.given_up"] == 3
        assert (found.seat.replica, found.seat.commands, found.seat.others) == ("a", True, ["b"])
        lines = click.unstyle(render(found)).splitlines()
        assert "this supervisor, a, is in command of 2 of 2 accounts" in lines
        assert "account shop: 2 of 2 cameras live, commanded by a" in lines
        assert [line.split(":")[0] for line in lines if line.startswith("commands")] == [
            "commands of home",
            "commands of shop",
        ]
        listed = (await made.client.get("/api/cameras", headers=BEARER)).json()["cameras"]
        assert [one["account"] for one in listed] == ["home", "home", "shop", "shop"]
        assert (await made.client.get("/readyz", headers=BEARER)).status_code == 200
        assert (await made.probes.get("/readyz")).status_code == 200
        page = await made.client.get("/", headers=BEARER)
        assert "static/accounts.js" in page.text
        assert (await made.client.get("/static/accounts.js", headers=BEARER)).status_code == 200


async def test_problems_and_reasons_say_which_account_they_are_about(tmp_path: Path) -> None:
    async with accounts_world(tmp_path) as made:
        shop = made.relays["shop"]
        shop.problems.append(verdict(Cause.DISK_FULL, state="degraded", wall=0.0))
        for camera in shop.cameras:
            camera.state = "offline"
        found = decoded(await made.client.get("/api/stats", headers=BEARER))
        assert [one.account for one in found.problems] == ["shop"]
        ready = (await made.client.get("/readyz", headers=BEARER)).json()
        assert {(one["account"], one["camera"][:4]) for one in ready["reasons"]} == {("shop", "shop")}
        assert [(one["account"], one["part"]) for one in ready["problems"]] == [("shop", "shop")]


async def test_metrics_are_of_each_account_here(tmp_path: Path) -> None:
    async with accounts_world(tmp_path) as made:
        text = (await made.client.get("/metrics", headers=BEARER)).text
        lines = text.splitlines()
        for name in made.relays:
            assert f'relay_in_command{{relay="{name}"}} 1.0' in lines
            assert f'relay_connected_cameras{{relay="{name}"}} 2.0' in lines
        assert lines.count("# TYPE relay_in_command gauge") == 1
        await made.stand_by(SeatStatus(replica="a", state="standing by", commands=False, holder="b"))
        lines = (await made.client.get("/metrics", headers=BEARER)).text.splitlines()
        assert 'relay_in_command{relay="shop"} 0.0' in lines
        assert not [line for line in lines if line.startswith('relay_connected_cameras{relay="shop"} 2')]


async def test_what_is_about_one_camera_is_answered_by_its_account(tmp_path: Path) -> None:
    async with accounts_world(tmp_path) as made:
        for client in (made.client, made.socket):
            made.relays["shop"].calls.clear()
            answered = await client.post("/api/cameras/shopcam00001/keyframe", headers=BEARER)
            assert answered.status_code == 200, answered.text
            assert made.relays["shop"].calls == [("keyframe", "shopcam00001")]
            answered = await client.post("/accounts/home/api/cameras/homecam00000/keyframe", headers=BEARER)
            assert answered.status_code == 200, answered.text
        assert made.relays["home"].calls == [("keyframe", "homecam00000")] * 2
        assert (await made.client.post("/api/cameras/shopcam00001/keyframe")).status_code == 401
        assert (await made.client.post("/accounts/shop/api/cameras/shopcam00001/keyframe")).status_code == 401
        unknown = await made.client.post("/api/cameras/nobody/keyframe", headers=BEARER)
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_camera")
        unknown = await made.client.get("/accounts/nobody/api/stats", headers=BEARER)
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_account")
        assert (await made.client.get("/accounts/nobody")).status_code == 404
        assert unknown.headers["X-Frame-Options"] == "DENY"
        of_all = await made.client.get("/api/logs", headers=BEARER)
        assert (of_all.status_code, of_all.json()["error"]["code"]) == (404, "name_an_account")
        assert "home, shop: typed, `relay-supervisor --account NAME" in of_all.json()["error"]["hint"]


@pytest.mark.parametrize("base", ["", "/cams"])
async def test_an_accounts_own_page_is_complete(tmp_path: Path, base: str) -> None:
    async with accounts_world(tmp_path, base) as made:
        at = f"{base}/accounts/shop"
        moved = await made.client.get(at)
        assert (moved.status_code, moved.headers["location"]) == (308, f"{at}/")
        assert "Sign in" in (await made.client.get(f"{at}/")).text
        signed = await made.client.post(f"{at}/login", data={"token": TOKEN})
        assert (signed.status_code, signed.headers["location"]) == (303, f"{at}/")
        assert f"Path={at}/" in signed.headers["set-cookie"]
        # One who has signed in on the page of all needs no more.
        made.client.cookies.clear()
        signed = await made.client.post(f"{base}/login", data={"token": TOKEN})
        assert signed.headers["location"] == f"{base}/"
        assert "static/app.js" in (await made.client.get(f"{at}/")).text
        found = decoded(await made.client.get(f"{at}/api/stats"))
        assert ({one.id[:4] for one in found.cameras}, found.accounts) == ({"shop"}, [])
        assert (await made.client.get(f"{at}/static/app.js")).status_code == 200


async def test_a_proxy_that_strips_its_prefix_is_told_apart(tmp_path: Path) -> None:
    async with accounts_world(tmp_path) as made:
        prefix = {"X-Forwarded-Prefix": "/seen", "X-Forwarded-For": "192.0.2.9"}
        signed = await made.client.post("/accounts/shop/login", data={"token": TOKEN}, headers=prefix)
        assert signed.headers["location"] == "/seen/accounts/shop/"
        signed = await made.client.post("/login", data={"token": TOKEN}, headers=prefix)
        assert signed.headers["location"] == "/seen/"


async def test_links_from_before_lead_to_the_cameras_page(tmp_path: Path) -> None:
    async with accounts_world(tmp_path) as made:
        given = await made.client.post("/api/cameras/shopcam00001/link", json={}, headers=BEARER)
        assert given.status_code == 200, given.text
        path = given.json()["path"]
        assert path.startswith("/watch/shopcam00001?")
        moved = await made.client.get(path)
        assert (moved.status_code, moved.headers["location"]) == (307, f"/accounts/shop{path}")
        assert (await made.client.get(moved.headers["location"])).status_code == 200
        assert (await made.client.get("/api/stats")).status_code == 401


async def test_an_account_that_cannot_be_asked_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosting, "_CHANGES_WITHIN", 0.05)
    monkeypatch.setattr(accounts, "KEPT", 0.0)
    async with accounts_world(tmp_path) as made:
        await made.stand_by(SeatStatus(replica="a", state="standing by", commands=False, holder="b"))
        found = decoded(await made.client.get("/api/stats", headers=BEARER))
        (home, shop) = found.accounts
        assert (home.problem, shop.problem) == ("", "b commands it and does not answer")
        assert (shop.holder, shop.here, found.seat.state) == ("b", False, "in command of 1 of 2 accounts")
        assert {one.account for one in found.cameras} == {"home"}
        assert (await made.probes.get("/readyz")).status_code == 200, "it could take over"
        await made.hostings["shop"].end()
        made.hostings["shop"].problem = "its port is taken"
        (_, shop) = decoded(await made.client.get("/api/stats", headers=BEARER)).accounts
        assert shop.problem == "The account shop cannot be asked here: its port is taken"
        away = await made.client.get("/accounts/shop/", headers=BEARER)
        assert (away.status_code, away.json()["error"]["code"]) == (503, "account_away")
        assert "port" not in away.text, "whoever asks has not shown who it is"
        ready = await made.client.get("/readyz", headers=BEARER)
        assert (ready.status_code, ready.json()["reasons"][0]["part"]) == (503, "shop")


async def test_a_request_waits_while_its_account_changes_hands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosting, "_CHANGES_WITHIN", 60.0)
    async with accounts_world(tmp_path) as made:
        await made.interfaces[1].stop()
        asked = asyncio.ensure_future(made.client.get("/accounts/shop/api/stats", headers=BEARER))
        await asyncio.sleep(0.1)
        assert not asked.done()
        await made.interfaces[1].start()
        assert (await asked).status_code == 200


async def test_the_command_line_asks_all_or_the_one_that_is_named(tmp_path: Path) -> None:
    async with accounts_world(tmp_path) as made:
        paths = made.config.paths
        file = tmp_path / "relay.toml"
        file.write_text(f'[paths]\nruntime_dir = "{paths.runtime()}"\nstate_dir = "{paths.state()}"\n')

        async def said(*words: str) -> str:
            answered = await asyncio.to_thread(CliRunner().invoke, cli, [*words, "-c", str(file)])
            assert answered.exit_code == 0, answered.output
            return answered.output

        every = await said("cameras")
        assert ("Driveway of home" in every, "Driveway of shop" in every) == (True, True)
        assert [line.split()[0] for line in every.splitlines()] == ["ACCOUNT", "home", "home", "shop", "shop"]
        of_shop = await said("--account", "shop", "cameras")
        assert ("Driveway of home" in of_shop, "Driveway of shop" in of_shop) == (False, True)
        await said("keyframe", "Driveway of shop")
        assert made.relays["shop"].calls == [("keyframe", "shopcam00001")]
