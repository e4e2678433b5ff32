"""A process that has rehearsed a worker's life: nothing secret or random of it is in those that are forked from it.

And one that could not: it starts over without, and serves all the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from relay_worker import native
from relay_worker.process import gathered

PATIENCE = 300
"""Seconds for a program of these tests, most of which is imports: they hold nothing."""
pytestmark = pytest.mark.timeout(PATIENCE + 60)

_PROGRAM = """
import asyncio, gc, json, os, random, re, ssl, sys, tempfile
from pathlib import Path
import aiortc.rtcdtlstransport as dtls
import relay_worker.process.preload
from relay_worker import native
from relay_worker.process import rehearsal, rehearsal_supervisor
rehearsal.DEADLINE = 60.0
native.choose(sys.argv[1])

# A life ends a moment after the first picture and sound: a busy machine may see no repair in it, a stream as well.
class Repaired(asyncio.Event):
    def __init__(self, sink):
        super().__init__()
        self.sink = sink
    def set(self):
        if len(self.sink.first) > 2:
            super().set()
class Sink(rehearsal_supervisor.RehearsedSink):
    def __init__(self):
        super().__init__()
        self.playing = Repaired(self)
rehearsal_supervisor.RehearsedSink = Sink

keys = []
class Policy(dtls.Policy):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        keys.append(bytes(self.key).hex())
dtls.Policy = Policy

def lived():
    keys.clear()
    with tempfile.TemporaryDirectory() as directory:
        sink = asyncio.run(rehearsal.live(Path(directory)))
    found = {name: re.search(pattern, sink.offer)[1] for name, pattern in {
        "ice ufrag": "a=ice-ufrag:(.*)", "ice pwd": "a=ice-pwd:(.*)", "certificate": "a=fingerprint:sha-256 (.*)",
        "session": "o=- ([0-9]+)", "cname": "cname:(.*)"}.items()}
    for place, (ssrc, (_, timestamp)) in enumerate(sorted(sink.first.items())):
        found |= {f"ssrc {place}": ssrc, f"timestamp {place}": timestamp}
    # Two of 65536 are the same one time in thousands, two pairs never.
    found["sequences"] = sorted(sequence for sequence, _ in sink.first.values())
    assert len(found["sequences"]) == 3
    found |= {f"srtp key {place}": key for place, key in enumerate(keys)}
    found |= {"random": random.random(), "openssl": ssl.RAND_bytes(16).hex(), "kernel": os.urandom(16).hex()}
    return found

lives = [lived()]
with tempfile.TemporaryDirectory() as directory:
    gc.unfreeze()
    said = rehearsal.rehearse_and_gather(Path(directory))
for _ in range(2):
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.write(writing, json.dumps(lived()).encode())
        os._exit(0)
    os.close(writing)
    lives.append(json.loads(os.fdopen(reading).read()))
    os.waitpid(child, 0)
lives.append(lived())
print(json.dumps([said, lives]))
"""


@pytest.mark.parametrize("path", ["python", "compiled"])
def test_two_workers_of_a_rehearsed_process_have_nothing_secret_or_random_in_common(path: str) -> None:
    if path == "compiled" and native.missing():
        pytest.skip(native.missing())
    program = [sys.executable, "-c", _PROGRAM, path]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ran.returncode == 0, ran.stderr
    said: str
    lives: list[dict[str, Any]]
    said, lives = json.loads(ran.stdout)
    assert said == "", "one thread, no descriptor"
    assert all(len(life) >= 18 for life in lives), lives
    for name in lives[0]:
        assert len({str(life[name]) for life in lives}) == len(lives), name


_GATHERED = """
import gc, json, tempfile
from pathlib import Path
import relay_worker.process.preload
from relay_common.allocator import fill_holes, give_back
from relay_worker.process import gathered, rehearsal
rehearsal.DEADLINE = 60.0
gc.unfreeze()

def pages(codes):
    return len({page for code in codes for page in range(id(code) >> 12, (id(code) + code.__sizeof__() >> 12) + 1)})

with gathered.watched() as ran, tempfile.TemporaryDirectory() as directory:
    said = rehearsal.rehearse(Path(directory))
functions = [one for one in gathered._functions() if id(one.__code__) in ran]
before = pages(one.__code__ for one in functions)
give_back(), fill_holes()
moved = gathered.gather(ran)
with tempfile.TemporaryDirectory() as directory:
    again = rehearsal.rehearse(Path(directory), 2)
print(json.dumps([said, again, moved, before, pages(one.__code__ for one in functions)]))
"""


@pytest.mark.skipif(not gathered.PAYS, reason="nothing is moved on this interpreter")
def test_what_a_worker_runs_is_moved_together_and_runs_as_before() -> None:
    program = [sys.executable, "-c", _GATHERED]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE, check=True)
    said, again, moved, before, after = json.loads(ran.stdout)
    assert (said, again) == ("", "")
    assert moved > 1000
    assert after < before / 2, f"of {before} pages"


_LAUNCHED = """
import asyncio, json, os, sys
from pathlib import Path
import zmq, zmq.asyncio
from relay_common import wire
from relay_supervisor.fleet.processes import fork_server
from relay_worker.process.spec import WorkerSpec

directory = Path(sys.argv[1])
fork_server.PRELOAD_REHEARSED = "broken"

async def hello(launcher, router):
    spec = WorkerSpec(camera="c", name="C", instance="c.1", control=f"ipc://{directory}/c", stats=f"ipc://{directory}/s")
    try:
        worker = await launcher.start(spec)
    except (EOFError, ConnectionError, TimeoutError):
        await asyncio.sleep(0.2)  # for one that dies to be dead
        return None
    said = wire.supervisor_reader().decode((await router.recv_multipart())[1]).rehearsal
    worker.end_now()
    await worker.wait()
    server = f"/proc/{fork_server._server()}"
    files = [os.readlink(f"{server}/fd/{name}") for name in os.listdir(f"{server}/fd")]
    return [said, len(os.listdir(f"{server}/task")), [file for file in files if "left" in file]]

async def main():
    launcher = fork_server.ForkServerLauncher(directory, timeout=float(os.environ["TIMEOUT"]))
    with zmq.asyncio.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind(f"ipc://{directory}/c")
        said = [await hello(launcher, router)]
        launcher._timeout = 120.0  # only the first one has to be late
        said.append(await hello(launcher, router))
        while said[-1] is None and len(said) < 8:
            said.append(await hello(launcher, router))
        print(json.dumps(said))

asyncio.run(main())
"""

_FAULTS = {
    "fails": """
async def live(directory):
    threading.Thread(target=time.sleep, args=(60,)).start()
    os.dup2(os.open(directory / "left", os.O_CREAT | os.O_RDWR), 77)
    raise RuntimeError("on purpose")
""",
    "leaves something": """
async def live(directory):
    os.dup(os.open(directory / "left", os.O_CREAT | os.O_RDWR))
""",
    "is late": """
rehearsal.DEADLINE, rehearsal.HANGS = 0.1, 90.0
async def live(directory):
    await asyncio.sleep(60)
""",
    "hangs": """
rehearsal.HANGS = 0.1
async def live(directory):
    time.sleep(60)
""",
}


def launched(directory: Path, fault: str, timeout: float = 120.0) -> Any:
    """Of two workers that are started one after the other, and of more until one was: what they say about the
    rehearsal, the server's threads, and which of the files that the fault left are open; None where none was started.
    """
    (directory / "broken.py").write_text(
        "import asyncio, os, signal, threading, time\nfrom relay_worker.process import rehearsal\n"
        f"{fault}\nrehearsal.live = live\nimport relay_worker.process.preload_rehearsed\n"
    )
    with tempfile.TemporaryDirectory(prefix="r-") as short:  # sockets lie in it
        ran = subprocess.run(
            [sys.executable, "-c", _LAUNCHED, str(directory)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=os.environ | {"PYTHONPATH": str(directory), "TIMEOUT": str(timeout), "TMPDIR": short},
        )
        assert ran.returncode == 0, ran.stderr
        assert not list(Path(short).glob("nest-relay-*")), "its directory is left"
    return json.loads(ran.stdout)


def test_workers_say_that_they_were_rehearsed(tmp_path: Path) -> None:
    for said, threads, _ in launched(tmp_path, "rehearsal.DEADLINE = rehearsal.HANGS = 90.0\nlive = rehearsal.live"):
        assert (said, threads) == ("rehearsed", 1)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("fails", "RuntimeError: on purpose"),
        ("leaves something", "it left 2 descriptors"),
        ("is late", "it was not over within 0.1 s"),
        ("hangs", "it hung for 0.1 s"),
    ],
)
def test_after_a_rehearsal_that_went_wrong_the_server_starts_over_without(tmp_path: Path, how: str, why: str) -> None:
    for said, threads, left in launched(tmp_path, _FAULTS[how]):
        assert (said, threads, left) == (f"not rehearsed: {why}", 1, [])


@pytest.mark.parametrize("fault", ["os.kill(os.getpid(), signal.SIGKILL)", "signal.pause()"], ids=["dies", "is stuck"])
def test_a_server_that_does_not_get_as_far_as_forking_is_followed_by_one_that_only_imports(
    tmp_path: Path, fault: str
) -> None:
    first, *_, last = launched(tmp_path, fault, timeout=4.0 if "pause" in fault else 120.0)
    assert first is None
    assert last[:2] == ["", 1]
