"""Which picture the page asks for: its own pure functions, in the browser that runs them, and what it keeps."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from playwright.async_api import Page, Route

import relay_supervisor.http
from tests.fixtures.chromium import chromium

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

STATIC: Final = Path(relay_supervisor.http.__file__).parent / "static"
ORIGIN: Final = "http://page.test"
LINE: Final = """
(spans) => {
  // A viewer of a 640 wide camera, once a second: each span is [seconds, what the line does to the full picture].
  const source = {width: 640, fps: 30, rate: 2e6, loss: 0};
  const total = {packetsReceived: 0, packetsLost: 0, framesDecoded: 0, framesDropped: 0, totalFreezesDuration: 0,
    jitterBufferDelay: 0, jitterBufferEmittedCount: 0, fps: 30, width: 640, incoming: 0, videoBytes: 0};
  let state = unknown(0), now = 0;
  const phases = [];
  for (const [seconds, does] of spans) {
    for (let second = 0; second < seconds; second++) {
      now += 1000;
      const small = state.phase === "narrow" || does.keptSmall;
      const usual = {received: small ? 20 : 200, lost: 0, frames: 30, dropped: 0, frozen: 0, late: 0.05};
      const it = {...usual, ...(small ? {} : does)};
      if (does.lossyAnyway) it.lost = 20;
      total.packetsReceived += it.received;
      total.videoBytes += 1100 * it.received;
      total.packetsLost += it.lost;
      total.framesDecoded += it.frames;
      total.framesDropped += it.dropped;
      total.totalFreezesDuration += it.frozen;
      total.jitterBufferEmittedCount += it.frames;
      total.jitterBufferDelay += it.frames * it.late;
      const reading = {...total, fps: it.frames, width: small ? 320 : 640, incoming: it.incoming ?? 0};
      state = judged(state, reading, {...source, ...does.source}, now);
      if (due(state, now)) state = tried(state, now);
      if (phases.at(-1)?.[0] !== state.phase) phases.push([state.phase, now / 1000, state.cause]);
    }
  }
  return phases;
}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page() -> AsyncIterator[Page]:
    """A page with the functions of `quality.js` and the class of `renditions.js` as globals."""

    async def serve(route: Route) -> None:
        name = route.request.url.removeprefix(f"{ORIGIN}/")
        if name:
            await route.fulfill(path=STATIC / name, content_type="text/javascript")
        else:
            await route.fulfill(body="<title>page</title>", content_type="text/html")

    async with chromium() as browser:
        page = await browser.new_page()
        await page.route(f"{ORIGIN}/**", serve)
        await page.goto(f"{ORIGIN}/")
        await page.evaluate(
            "async () => Object.assign(window, await import('./quality.js'), await import('./renditions.js'))"
        )
        yield page


async def phases(page: Page, *spans: tuple[int, dict[str, Any]]) -> list[tuple[str, float]]:
    found = await page.evaluate(f"({LINE})({json.dumps(spans)})")
    return [(phase, at) for phase, at, _ in found]


@pytest.mark.parametrize(
    ("widths", "alone", "expected"),
    [
        ([405], "", "f"),
        ([1200], "", "f"),
        ([600, 600], "", "ff"),
        ([405, 405, 405], "", "sss"),
        ([600] * 4, "", "ffff"),
        ([600] * 5, "", "sssss"),
        ([405] * 6, "2", "ssfsss"),
        ([600, 600], "0", "fs"),
    ],
)
async def test_what_a_tile_needs(page: Page, widths: list[int], alone: str, expected: str) -> None:
    tiles = json.dumps([{"id": str(number), "width": width} for number, width in enumerate(widths)])
    needs = await page.evaluate(f"[...planned({tiles}, {json.dumps(alone)}).values()]")
    assert "".join(need[0] for need in needs) == expected


FULL_LINE = {"lost": 60, "frozen": 0.5, "frames": 12}
WIDE: dict[str, Any] = {}


@pytest.mark.parametrize(
    "does",
    [
        FULL_LINE,
        {"late": 0.6, "frames": 12},
        {"lost": 20},
        {"incoming": 500e3, "received": 60},
        {"dropped": 15, "frames": 15},
        {"late": 0.6},
    ],
    ids=["lossy and frozen", "late and slow", "lossy", "estimated", "too slow a machine", "late"],
)
async def test_a_picture_that_does_not_get_through_is_left_within_five_seconds(
    page: Page, does: dict[str, Any]
) -> None:
    found = await phases(page, (20, WIDE), (6, does))
    assert [phase for phase, _ in found] == ["free", "narrow"]
    assert found[1][1] <= 25


@pytest.mark.parametrize(
    "does",
    [
        {"lost": 4},
        {"frozen": 1.0, "frames": 3, "source": {"fps": 3}},
        {"lost": 30, "source": {"loss": 0.1}},
        {"late": 0.2},
        {"keptSmall": True, "lossyAnyway": True},
        {"incoming": 170e3},
    ],
    ids=[
        "little loss",
        "a camera that pauses",
        "lost before the SFU",
        "a little late",
        "the SFU sends the small one",
        "an estimate that lags behind what arrives",
    ],
)
async def test_what_is_not_the_lines_fault_changes_nothing(page: Page, does: dict[str, Any]) -> None:
    assert await phases(page, (20, WIDE), (60, does)) == [("free", 1)]


async def test_a_single_bad_second_changes_nothing(page: Page) -> None:
    assert await phases(page, (20, WIDE), (1, FULL_LINE), (20, WIDE), (1, FULL_LINE), (20, WIDE)) == [("free", 1)]


async def test_the_full_picture_comes_back_carefully(page: Page) -> None:
    """On a line that stays narrow, tries become rarer, and are short; on one that recovers, it is back in 15 s."""
    found = await phases(page, (10, WIDE), (200, FULL_LINE))
    tries = [at for phase, at in found if phase == "trial"]
    waits = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert max(waits[:3]) <= 11, waits
    assert len(waits) >= 6
    assert all(later > 1.5 * earlier for earlier, later in itertools.pairwise(waits[2:])), waits
    ends = [at for phase, at in found[2:] if phase == "narrow"]
    assert all(end - began <= 1 for began, end in zip(tries, ends, strict=False)), found
    found = await phases(page, (10, WIDE), (5, FULL_LINE), (40, WIDE))
    assert [phase for phase, _ in found] == ["free", "narrow", "trial", "free"]
    assert found[2][1] - 15 <= 15


FLOOD = {"received": 50, "lost": 150, "frozen": 1.0, "frames": 0}


async def test_a_line_that_varies_is_followed_down_in_five_seconds_and_up_in_fifteen(page: Page) -> None:
    """Also when a try failed in between, and when it narrows before the full picture has counted as lasting."""
    spans: list[tuple[int, dict[str, Any]]] = [(20, WIDE), *[(20, FLOOD), (20, WIDE)] * 4]
    found = await phases(page, *spans)
    for began in range(20, 180, 40):
        down = next(at for phase, at in found if phase == "narrow" and at > began)
        assert down - began <= 5, found
        up = [at for phase, at in found if phase == "trial" and began + 20 < at <= began + 40]
        assert len(up) == 1, found
        assert up[0] - (began + 20) <= 12, "and a keyframe has to come"
        assert any(phase == "trial" and began < at <= began + 20 for phase, at in found), "one failed"


FIRST: Final = """
([phase, known, does, milliseconds]) => {
  // From the moment that the full picture is asked for, of a camera whose small picture may have been there before.
  const source = {width: 640, fps: 30, rate: 2e6, loss: 0, ...does.source};
  const total = {packetsReceived: 100, packetsLost: 0, framesDecoded: 10, framesDropped: 0, totalFreezesDuration: 0,
    jitterBufferDelay: 0, jitterBufferEmittedCount: 0, fps: 10, width: known, incoming: 0, videoBytes: 1e5};
  let state = phase === "trial" ? tried(judged(unknown(0, true), total, source, 0), 0) : unknown(0);
  for (let now = 250; now <= milliseconds; now += 250) {
    total.packetsReceived += does.received ?? 0;
    total.packetsLost += does.lost ?? 0;
    total.framesDecoded += does.frames ?? 0;
    total.videoBytes += 1100 * (does.received ?? 0);
    state = judged(state, {...total}, source, now);
    if (state.phase === "narrow") return now;
  }
  return null;
}
"""


@pytest.mark.parametrize(("phase", "known"), [("trial", 320), ("free", 0)], ids=["after the small one", "at once"])
@pytest.mark.parametrize(
    ("does", "within"),
    [
        ({"received": 14, "lost": 40}, 750),
        ({"received": 14}, 1500),
        ({"received": 5, "frames": 3}, None),
        ({"received": 1}, None),
        ({"received": 2, "lost": 1}, None),
        ({"received": 30, "lost": 8, "frames": 8, "source": {"loss": 0.1}}, None),
    ],
    ids=[
        "flooded",
        "in a long queue",
        "still small",
        "still small, of keyframes",
        "one is lost",
        "lost before the SFU",
    ],
)
async def test_a_full_picture_whose_first_does_not_get_through_is_given_up_at_once(
    page: Page, phase: str, known: int, does: dict[str, Any], within: int | None
) -> None:
    """Its first picture is large, and until it is decoded there is nothing to see: two seconds are long."""
    took = await page.evaluate(f"({FIRST})({json.dumps([phase, known, does, 6000])})")
    if within is None:
        assert took is None
    else:
        assert took is not None
        assert took <= within


async def test_a_small_picture_that_suffers_too_is_no_time_for_a_try(page: Page) -> None:
    found = await phases(page, (10, WIDE), (60, {**FULL_LINE, "lossyAnyway": True}))
    assert [phase for phase, _ in found] == ["free", "narrow"]


# -- with statuses, pins and what is kept ----------------------------------------------------------------------------

ASK: Final = """
(kept) => {
  localStorage.clear();
  for (const [name, value] of Object.entries(kept)) localStorage.setItem(`relay.${name}`, JSON.stringify(value));
  window.made = new Renditions();
  const video = {width: 640, fps: 30, bitrate_in: 2e6, loss_out: 0, keyframe_interval: 2};
  made.learn([
    {id: "one", renditions: "smooth", video},
    {id: "two", renditions: "keyframes", video},
    {id: "old", renditions: "off", video},
  ]);
  window.tiles = (...ids) => ids.map((id) => ({id, width: 600}));
}
"""
WIDE_BEFORE: Final = {"line": {"narrow": False, "at": 0}}


async def test_cameras_with_one_picture_are_not_asked_about(page: Page) -> None:
    await page.evaluate(ASK, WIDE_BEFORE)
    assert await page.evaluate("made.ask(tiles('one', 'old'))") == {"one": "full"}
    assert await page.evaluate("made.ask(tiles('old'))") == {}
    assert await page.evaluate("made.words('old')") == ""


async def test_a_choice_is_kept_for_each_camera(page: Page) -> None:
    await page.evaluate(ASK, WIDE_BEFORE)
    await page.evaluate("made.pin('one', 'small')")
    assert await page.evaluate("made.ask(tiles('one', 'two'))") == {"one": "small", "two": "full"}
    assert await page.evaluate("made.words('one')") == "small, as chosen"
    assert await page.evaluate("new Renditions().pinned('one')") == "small"
    await page.evaluate("made.pin('two', 'full')")
    asked = await page.evaluate("made.ask(tiles('one', 'two'), {alone: 'one'})")
    assert asked == {"one": "small", "two": "full"}
    assert await page.evaluate("made.words('two')") == "full, as chosen"
    await page.evaluate("made.pin('one', '')")
    assert await page.evaluate("made.ask(tiles('one', 'two'), {alone: 'one'})") == {"one": "full", "two": "full"}
    assert await page.evaluate("JSON.parse(localStorage.getItem('relay.quality'))") == {"two": "full"}


async def test_a_tile_whose_picture_does_not_move_says_how_often_it_comes(page: Page) -> None:
    await page.evaluate(ASK, WIDE_BEFORE)
    await page.evaluate("made.ask(tiles('one', 'two', 'old'), {alone: 'old'})")
    assert await page.evaluate("made.words('one')") == "", "smooth"
    assert await page.evaluate("made.words('two')") == "a picture every 2 s", "as the camera's keyframes"
    pictures = """
    (every) => {
      for (let second = 0; second <= 16; second++) {
        const keyFramesDecoded = 1 + Math.floor(second / every);
        const packetsReceived = 1 + second;
        const framesDecoded = 1 + 4 * second;
        const reading = {framesDecoded, keyFramesDecoded, packetsReceived, packetsLost: 0, width: 320, fps: 4};
        made.watch(new Map([["one", reading], ["two", reading]]), 1000 * second);
      }
      return made.words("two");
    }
    """
    assert await page.evaluate(pictures, 4) == "a picture every 4 s", "as many as their cost allows"
    await page.evaluate("made.pin('two', 'small')")
    assert await page.evaluate("made.words('two')") == "small, as chosen, a picture every 4 s"
    limited = """
    made.learn([{id: 'one', renditions: 'smooth', rendition: {active: 'keyframes', reason: 'the machine is busy'}}])
    """
    await page.evaluate(limited)
    assert await page.evaluate("made.words('one')") == "a picture every 4 s"
    await page.evaluate(ASK, WIDE_BEFORE)
    await page.evaluate("made.learn([{id: 'two', renditions: 'keyframes'}])")
    await page.evaluate("made.ask(tiles('two', 'old'), {alone: 'old'})")
    assert await page.evaluate("made.words('two')") == "a picture every few seconds", "for guests"


async def test_on_an_unknown_line_the_small_picture_comes_first(page: Page) -> None:
    await page.evaluate(ASK, {})
    assert await page.evaluate("made.ask(tiles('one'))") == {"one": "small"}
    assert await page.evaluate("made.words('one')") == "", "nothing is wrong with the line"
    reading = {"framesDecoded": 1, "packetsReceived": 10, "packetsLost": 0, "width": 320, "fps": 1}
    await page.evaluate("(reading) => made.watch(new Map([['one', reading]]))", reading)
    assert await page.evaluate("made.ask(tiles('one'))") == {"one": "full"}


async def test_a_tile_that_is_enlarged_on_a_line_that_nobody_knows_is_full_at_once(page: Page) -> None:
    """Its small picture is there, and is what the full one replaces."""
    await page.evaluate(ASK, {})
    assert await page.evaluate("made.ask(tiles('one', 'two'), {alone: 'two'})") == {"one": "small", "two": "small"}
    reading = {"framesDecoded": 1, "packetsReceived": 10, "packetsLost": 0, "width": 320, "fps": 1}
    await page.evaluate("(reading) => made.watch(new Map([['one', reading]]))", reading)
    assert await page.evaluate("made.ask(tiles('one', 'two'), {alone: 'one'})") == {"one": "full", "two": "small"}


async def test_readings_follow_each_other_sooner_while_the_full_picture_is_awaited(page: Page) -> None:
    await page.evaluate(ASK, {})
    assert not await page.evaluate("made.lively()")
    after = """
    () => {
      made.ask(tiles('one'));
      const asked = performance.now();
      return [0, 14000, 16000].map((later) => made.lively(asked + later));
    }
    """
    assert await page.evaluate(after) == [True, True, False]
    await page.evaluate(ASK, WIDE_BEFORE)
    assert await page.evaluate(after) == [True, True, False]
    reading = {"framesDecoded": 9, "packetsReceived": 10, "packetsLost": 0, "width": 640, "fps": 30}
    await page.evaluate(
        "(reading) => [0, 900].forEach((at) => made.watch(new Map([['one', reading]]), performance.now() + at))",
        reading,
    )
    assert not await page.evaluate("made.lively()"), "it is there"


@pytest.mark.parametrize("full_first", [True, False])
async def test_a_picture_that_the_sfu_makes_small_by_itself_is_asked_for(page: Page, full_first: bool) -> None:
    """Else nobody counts as its viewer, and it comes once in ten seconds."""
    await page.evaluate(ASK, WIDE_BEFORE)
    assert await page.evaluate("made.ask(tiles('one'))") == {"one": "full"}
    second = """
    ([width, second]) => {
      const reading = {framesDecoded: 30 * second, packetsReceived: 100 * second, packetsLost: 0, fps: 30, width};
      made.watch(new Map([['one', reading]]), 1000 * second);
      return made.ask(tiles('one')).one;
    }
    """
    asked = [await page.evaluate(second, [640 if full_first else 320, at]) for at in range(1, 5)]
    asked += [await page.evaluate(second, [320, at]) for at in range(5, 14)]
    assert asked.index("small") == 6, asked
    assert asked[-1] == "small"
    assert await page.evaluate("made.words('one')") == "small: line too narrow"


async def test_an_sfu_that_keeps_the_picture_small_is_asked_for_the_full_one_again_and_again(page: Page) -> None:
    """It watches the line itself. A try that it spares the line costs nothing, and the next is not put off."""
    await page.evaluate(ASK, {})
    script = """
    () => {
      made.ask(tiles("one"));
      const asked = [], words = [], began = performance.now();
      for (let second = 1; second <= 80; second++) {
        const reading = {framesDecoded: 10 * second, packetsReceived: 20 * second, packetsLost: 0, fps: 10, width: 320};
        made.watch(new Map([["one", reading]]), began + 1000 * second);
        asked.push(made.ask(tiles("one")).one);
        words.push(made.words("one"));
      }
      return [asked, words];
    }
    """
    asked, words = await page.evaluate(script)
    spans = [(quality, len(list(seconds))) for quality, seconds in itertools.groupby(asked)]
    assert all(quality == ("full", "small")[index % 2] for index, (quality, _) in enumerate(spans)), spans
    assert {seconds for quality, seconds in spans[:-1] if quality == "small"} == {2}, spans
    assert {seconds for quality, seconds in spans[:-1] if quality == "full"} == {11}, spans
    first_fall = asked.index("small")
    assert set(words[:first_fall]) == {""}
    assert set(words[first_fall:]) == {"small: line too narrow"}, "on a try as well, until the full one has come"


async def test_a_line_that_was_narrow_a_while_ago_is_taken_for_narrow(page: Page) -> None:
    now = await page.evaluate("Date.now()")
    await page.evaluate(ASK, {"line": {"narrow": True, "at": now - 60_000}})
    assert await page.evaluate("made.ask(tiles('one'))") == {"one": "small"}
    assert await page.evaluate("made.words('one')") == "small: line too narrow"
    await page.evaluate(ASK, {"line": {"narrow": True, "at": now - 3_600_000}})
    assert await page.evaluate("made.ask(tiles('one'))") == {"one": "full"}


async def test_what_is_played_from_the_relay_itself_stays_full(page: Page) -> None:
    """A change would interrupt it."""
    await page.evaluate(ASK, WIDE_BEFORE)
    asked = await page.evaluate("made.ask(tiles('one', 'two'), {alone: 'two', direct: (id) => id === 'one'})")
    assert asked == {"one": "full", "two": "full"}


async def test_what_is_played_from_the_relay_itself_is_full_at_once_on_an_unknown_line(page: Page) -> None:
    await page.evaluate(ASK, {})
    assert await page.evaluate("made.ask(tiles('one'), {direct: () => true})") == {"one": "full"}


async def test_pictures_made_of_keyframes_may_be_seconds_apart(page: Page) -> None:
    await page.evaluate(ASK, WIDE_BEFORE)
    await page.evaluate("made.ask(tiles('one', 'two'), {alone: 'old'})")
    assert await page.evaluate("[made.still('one'), made.still('two'), made.still('old')]") == [3000, 12000, 3000]
    await page.evaluate("made.ask(tiles('one', 'two'))")
    assert await page.evaluate("made.still('two')") == 3000


async def test_the_first_second_of_full_pictures_is_not_slow_because_of_the_small_ones_before(page: Page) -> None:
    """Pictures a second, as the browser counts them, are still few then."""
    script = """
    () => {
      const source = {width: 640, fps: 30, rate: 2e6, loss: 0};
      let reading = {packetsReceived: 0, packetsLost: 0, framesDecoded: 10, framesDropped: 0, totalFreezesDuration: 0,
        jitterBufferDelay: 0, jitterBufferEmittedCount: 0, fps: 10, width: 320, incoming: 0, videoBytes: 0};
      let state = tried(judged(unknown(0, true), reading, source, 0), 0);
      reading = {...reading, framesDecoded: 30, packetsReceived: 100, fps: 14, width: 640};
      state = judged(state, reading, source, 1000);
      return [state.full, state.score];
    }
    """
    assert await page.evaluate(script) == [True, 0]
