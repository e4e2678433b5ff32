"""Run by an interpreter that has google-nest-sdm: typical use of it, against the API whose addresses are given as JSON.

Reads {"nest": …, "offer": …} as one line of JSON and writes one line that says what it got.
"""

import asyncio
import dataclasses
import json
import sys

import aiohttp
from google_nest_sdm.auth import AbstractAuth
from google_nest_sdm.google_nest_api import GoogleNestAPI


class Auth(AbstractAuth):
    """Google's refresh-token grant."""

    def __init__(self, session, nest):
        super().__init__(session, nest["api_base_url"])
        self.nest, self.session = nest, session

    async def async_get_access_token(self):
        form = {name: self.nest[name] for name in ("client_id", "client_secret", "refresh_token")}
        async with self.session.post(self.nest["token_url"], data={"grant_type": "refresh_token", **form}) as answer:
            return (await answer.json())["access_token"]


async def main(given):
    async with aiohttp.ClientSession() as session:
        api = GoogleNestAPI(Auth(session, given["nest"]), given["nest"]["project_id"])
        structures = await api.async_get_structures()
        devices = {device.info.custom_name: device for device in await api.async_get_devices()}
        report = {"structures": len(structures), "devices": {}, "parents": {}}
        for name, device in devices.items():
            live = device.traits["sdm.devices.traits.CameraLiveStream"]
            report["devices"][name] = sorted(protocol.value for protocol in live.supported_protocols)
            report["parents"][name] = list(device.parent_relations.values())
            if "RTSP" in report["devices"][name]:
                stream = await live.generate_rtsp_stream()
                longer = await stream.extend_rtsp_stream()
                report["rtsp"] = [stream.rtsp_stream_url.partition("?")[0], longer.expires_at > stream.expires_at]
                report["same stream"] = longer.rtsp_stream_url.partition("?")[0] == report["rtsp"][0]
                await longer.stop_stream()
            else:
                stream = await live.generate_web_rtc_stream(given["offer"])
                longer = await stream.extend_stream()
                report["answer"] = stream.answer_sdp
                report["webrtc"] = [bool(stream.media_session_id), longer.expires_at >= stream.expires_at]
                await longer.stop_stream()
        return report


print(json.dumps(asyncio.run(main(json.loads(sys.stdin.readline()))), default=dataclasses.asdict))
