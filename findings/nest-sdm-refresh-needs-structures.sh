#!/usr/bin/env bash
# google-nest-sdm 9.2.1 lists no camera where the structures cannot be listed, and reads one page of devices only.
# Seen 2026-11-28, Python 3.13.
#
# Guess: listing devices requests `devices`, page after page while the answer has a nextPageToken (the API's list calls
# take pageSize and pageToken).
# Seen: DeviceManager.async_refresh() requests `structures` first. When that is refused (404 here, as by a stand-in
# that only knows cameras) it raises before it ever requests devices. With structures, `devices` is requested once;
# the second page is never fetched, without any notice. A stand-in for Google's API must serve structures to be usable
# with this client.
#
# Everything runs against a server of this script's own on 127.0.0.1. It takes a Python of 3.13 or later: python3.13,
# or the one that PYTHON names.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3.13}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check google-nest-sdm==9.2.1

timeout 60 "$dir/venv/bin/python" - <<'PY'
import asyncio
import importlib.metadata
import sys

import aiohttp
from aiohttp import web
from google_nest_sdm.auth import AbstractAuth
from google_nest_sdm.device_manager import DeviceManager
from google_nest_sdm.google_nest_api import GoogleNestAPI


class Auth(AbstractAuth):
    async def async_get_access_token(self) -> str:
        return "example"


def device(name: str) -> dict[str, object]:
    traits = {"sdm.devices.traits.Info": {"customName": name}}
    return {"name": f"enterprises/p/devices/{name}", "type": "sdm.devices.types.CAMERA", "traits": traits}


async def refresh(structures: bool) -> tuple[list[str], list[str], str]:
    """The requests made, the devices found and the error raised by one refresh."""
    asked: list[str] = []

    async def serve(request: web.Request) -> web.Response:
        asked.append(request.path_qs.removeprefix("/enterprises/p/"))
        if request.path.endswith("/structures"):
            error = {"error": {"code": 404, "message": "Not found", "status": "NOT_FOUND"}}
            return web.json_response({"structures": []}) if structures else web.json_response(error, status=404)
        if request.query.get("pageToken"):
            return web.json_response({"devices": [device("second-page")]})
        return web.json_response({"devices": [device("first-page")], "nextPageToken": "more"})

    application = web.Application()
    application.router.add_get("/enterprises/p/{kind}", serve)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    error = "none"
    async with aiohttp.ClientSession() as session:
        auth = Auth(session, f"http://127.0.0.1:{runner.addresses[0][1]}")
        manager = DeviceManager(GoogleNestAPI(auth, "p"))
        try:
            await manager.async_refresh()
        except Exception as raised:
            error = type(raised).__name__
    await runner.cleanup()
    return asked, [name.rsplit("/", 1)[1] for name in manager.devices], error


async def main() -> None:
    print("google-nest-sdm", importlib.metadata.version("google-nest-sdm"))
    without, with_them = await refresh(structures=False), await refresh(structures=True)
    print("no structures: asked, found, raised:", *without)
    print("structures:    asked, found, raised:", *with_them)
    expected = (
        (["structures"], [], "NotFoundException"),
        (["structures", "devices"], ["first-page"], "none"),
    )
    sys.exit(0 if (without, with_them) == expected else f"changed: expected {expected}")


asyncio.run(main())
PY
