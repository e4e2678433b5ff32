"""The description of the HTTP API says what is served, and to whom."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from relay_common.clock import ManualClock
from relay_common.secrets import Secret
from relay_supervisor.http.app import CALLS, HttpSettings, create_app
from relay_supervisor.http.links import ViewerSettings
from relay_supervisor.http.openapi import Operation, Right, describe, page
from tests.fixtures.fake_relay import FakeRelay

TOKEN = "a-token-that-is-long-enough"
PAGES = {"/", "/login", "/static/{name}", "/watch/{id}"}
"""For browsers, not for programs."""
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def served() -> tuple[httpx.AsyncClient, Starlette]:
    clock = ManualClock()
    viewers = ViewerSettings(access="links", link_secret=Secret("a-secret-that-is-long-enough"))
    app = create_app(FakeRelay(clock, cameras=1), HttpSettings(token=Secret(TOKEN), viewers=viewers), clock)
    inner = app._app
    assert isinstance(inner, Starlette)
    # What lies behind the guard may fail: this relay is not a whole one.
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080"), inner


def test_every_route_for_programs_is_described_and_nothing_else() -> None:
    _, app = served()
    routes = {
        (method, route.path)
        for route in app.routes
        if isinstance(route, Route) and route.path not in PAGES
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert {(call.method, call.path) for call in CALLS} == routes
    assert len(CALLS) == len(routes)


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from (value for key, value in part.items() if key == "$ref")
    for one in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from references(one)


async def test_the_description_is_served_to_the_operator_and_whole() -> None:
    http, _ = served()
    assert (await http.get("/api/openapi.json")).status_code == 401
    document = (await http.get("/api/openapi.json", headers=BEARER)).json()
    assert document["openapi"].startswith("3.1")
    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= schemas
    operations = [one for path in document["paths"].values() for one in path.values()]
    assert len({one["operationId"] for one in operations}) == len(operations) == len(CALLS)
    assert all(one["summary"] and one["responses"] for one in operations)
    assert TOKEN not in json.dumps(document)


async def status_of(http: httpx.AsyncClient, call: Operation, headers: dict[str, str]) -> int:
    path = call.path.replace("{id}", "cam00000").replace("{viewer}", "viewer-1")
    return (await http.request(call.method, path, headers=headers)).status_code


@pytest.mark.parametrize("call", [c for c in CALLS if c.path != "/api/events"], ids=lambda c: f"{c.method} {c.path}")
async def test_each_call_needs_what_the_description_says(call: Operation) -> None:
    http, _ = served()
    made = await http.post("/api/cameras/cam00000/link", json={"seconds": 60}, headers=BEARER)
    query = parse_qs(urlsplit(made.json()["path"]).query)
    link = {"Authorization": f"Link cam00000.{query['expires'][0]}.{query['signature'][0]}"}
    nobody, guest = await status_of(http, call, {}), await status_of(http, call, link)
    operator = await status_of(http, call, BEARER)
    assert (nobody == 401) is (call.right is not Right.PUBLIC)
    assert (guest == 403) is (call.right is Right.OPERATOR)
    assert operator not in (401, 403)


async def test_events_need_the_token() -> None:
    http, _ = served()
    (call,) = (call for call in CALLS if call.path == "/api/events")
    assert call.right is Right.OPERATOR
    assert (await http.get(call.path)).status_code == 401


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/api/stats", "/api/cameras", "/api/watch/cam00000"])
async def test_what_is_answered_is_what_is_described(path: str) -> None:
    http, _ = served()
    body = (await http.get(path, headers=BEARER)).json()
    (call,) = (one for one in CALLS if one.method == "GET" and one.path == path.replace("cam00000", "{id}"))
    declared = describe(CALLS, "1")["paths"][call.path]["get"]["responses"]["200"]["content"]["application/json"]
    assert "schema" in declared
    reply = call.reply[0] if isinstance(call.reply, tuple) else call.reply
    assert isinstance(reply, type)
    assert set(body) == set(reply.__struct_fields__)
    msgspec.convert(body, reply)


def test_the_page_of_the_documentation_is_the_table() -> None:
    text = (Path(__file__).parents[3] / "docs" / "http-api.md").read_text()
    found = re.search(r"^\| call .*?\n(?!\|)", text, re.MULTILINE | re.DOTALL)
    assert found
    assert found[0].strip() == page(CALLS).strip(), f"the table is to be:\n{page(CALLS)}"
