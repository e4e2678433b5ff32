"""Backoff, liveness, state machines, clock, redaction."""

from __future__ import annotations

import asyncio
import enum
import logging
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_common import ids
from relay_common.backoff import Backoff
from relay_common.clock import ManualClock
from relay_common.fsm import IllegalTransition, Machine, Table
from relay_common.liveness import Liveness
from relay_common.log import ConsoleFormatter, ContextFilter, JsonFormatter
from relay_common.secrets import redact


@given(st.integers(0, 200), st.integers(0, 2**32))
def test_backoff_grows_to_its_ceiling_and_no_further(failures: int, seed: int) -> None:
    backoff = Backoff(1.0, 60.0, rng=random.Random(seed))
    delays = [backoff.next_delay() for _ in range(failures + 1)]
    nominal = min(60.0, 2.0**failures)
    assert nominal / 2 <= delays[-1] <= nominal
    backoff.reset()
    assert backoff.next_delay() <= 1.0


def test_liveness_names_the_longest_overdue_first() -> None:
    live = Liveness()
    live.watch("video", 2.0, now=0.0)
    live.watch("audio", 5.0, now=0.0)
    assert live.next_deadline() == 2.0
    assert live.overdue(2.0) == []
    live.progress("video", 2.0)
    live.progress("unknown", 2.0)
    assert live.overdue(7.0) == ["video", "audio"]
    live.forget("video")
    assert live.overdue(7.0) == ["audio"]
    assert live.age("audio", 7.0) == 7.0


class Light(enum.Enum):
    RED = "red"
    GREEN = "green"


class Push(enum.Enum):
    GO = "go"
    HALT = "halt"


LIGHTS: Table[Light, Push] = Table(
    "light", Light.RED, {(Light.RED, Push.GO): Light.GREEN, (Light.GREEN, Push.HALT): Light.RED}
)


def test_an_illegal_move_raises_and_changes_nothing() -> None:
    machine = Machine(LIGHTS)
    machine.fire(Push.GO)
    with pytest.raises(IllegalTransition, match=r"light: 'go' is not allowed in state 'green' \(allowed: halt\)"):
        machine.fire(Push.GO)
    assert machine.state is Light.GREEN
    assert machine.can(Push.HALT)
    assert "green --> red: halt" in LIGHTS.mermaid()


async def test_manual_clock_wakes_sleepers_in_order() -> None:
    clock = ManualClock(now=0.0)
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, *naps: float) -> None:
        for nap in naps:
            await clock.sleep(nap)
            woken.append((name, clock.now()))

    tasks = [asyncio.create_task(sleeper("a", 3, 1)), asyncio.create_task(sleeper("b", 2))]
    await clock.advance(3.5)
    assert woken == [("b", 2.0), ("a", 3.0)]
    await clock.advance(1)
    assert woken[-1] == ("a", 4.0)
    before = clock.wall()
    clock.step_wall(-100)
    assert clock.wall() == before - 100
    await asyncio.gather(*tasks)


SECRETS = [
    "rtsps://stream-ue1-alfa.dropcam.com:443/sdm_live_stream/abc?auth=g.0.eyJhbGci.eyJpc3.sig-na_ture",
    "Authorization: Bearer ya29.a0AfB_byC-secret",
    "authorization': 'Bearer cf-secret-value-1234",
    '{"refresh_token": "1//04abcdefghijklmnop"}',
    '{"streamExtensionToken":"CjY5Y3VKaTZwR3o4Y19YbTVfMF"}',
    "client_secret=GOCSPX-abcdef&grant_type=x",
    "a=ice-pwd:Zx9abcdefghijklmnopqrstuv",
    "rtsp://admin:hunter2pass@10.0.0.1/live",
    "rtsp://admin:hun@hunter2@10.0.0.1/live",
    "rtsp://admin:hun/hunter2@10.0.0.1/live",
    "rtsp://admin:p?hunter2#x@10.0.0.1:554/live",
    "rtsp://hunter2@10.0.0.1:554/live?x=1",
    "open rtsps://hunter2:@[2001:db8::7]/live failed",
    'Authorization: Digest username="operator7", realm="cam", nonce="n0nce", uri="/", response="6629fae49393a053"',
    "redirect https://www.google.com/?code=4/0AY0e-g7secret&scope=x",
]


@pytest.mark.parametrize("text", SECRETS)
def test_redaction_leaves_no_secret(text: str) -> None:
    secrets = (
        "eyJhbGci",
        "ya29",
        "cf-secret",
        "1//04",
        "CjY5",
        "GOCSPX",
        "Zx9abc",
        "hunter2",
        "4/0AY0",
        "operator7",
        "6629fae",
    )
    shown = redact(f"before {text} after")
    assert not any(secret in shown for secret in secrets), shown
    assert shown.startswith("before ")
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://10.0.0.1:554/live@home",
        "https://relay.example/watch/a@b",
        "rtsp://[2001:db8::7]:554/live@home",
        "http://127.0.0.1:8080 by alice@example.org",
    ],
)
def test_redaction_leaves_addresses_alone(url: str) -> None:
    assert redact(url) == url


@pytest.mark.parametrize("unit", ["a.", "a-", "://", "a://b:", "a://:x", "?auth=", "authorization: bearer "])
def test_redaction_takes_time_in_proportion_to_the_text(unit: str) -> None:
    text = unit * (65536 // len(unit))  # what others send is quoted: cameras, Google, the SFU
    began = time.process_time()
    redact(text)
    assert time.process_time() - began < 3.0


def test_redaction_leaves_advice_alone() -> None:
    advice = "cloudflare.app_secret is missing. Set it to the secret (app_secret = …, app_secret_file = a file)"
    assert redact(advice) == advice
    assert "hush" not in redact("app_secret = …hush, and app_secret = hush")


@pytest.mark.parametrize("formatter", [ConsoleFormatter(colour=False), JsonFormatter()])
def test_logs_are_redacted_with_their_context_and_traceback(formatter: logging.Formatter) -> None:
    try:
        raise ValueError(SECRETS[0])
    except ValueError as error:
        exc_info = (type(error), error, error.__traceback__)
    record = logging.getLogger("relay_x").makeRecord(
        "relay_x",
        logging.ERROR,
        "f",
        1,
        "failed: %s",
        (SECRETS[1],),
        exc_info,
        extra={"camera": "Front", "url": SECRETS[0]},
    )
    line = formatter.format(record)
    assert "eyJ" not in line
    assert "ya29" not in line
    assert "Front" in line


def test_what_is_true_of_a_process_is_in_every_line() -> None:
    record = logging.makeLogRecord({"name": "relay_worker.x", "msg": "hello", "levelname": "INFO", "instance": "own"})
    assert ContextFilter({"camera": "Porch", "instance": "a.b"}).filter(record)
    line = ConsoleFormatter(colour=False).format(record)
    assert line.endswith("hello instance=own camera=Porch")


def test_ids_are_stable_and_safe() -> None:
    assert ids.slug("Küche & Façade!") == "kuche-facade"
    assert ids.slug("日本") == "camera"
    assert ids.camera_id("enterprises/p/devices/d") == ids.camera_id("enterprises/p/devices/d")
    assert ids.instance_id("abc") != ids.instance_id("abc")
