"""A process that has rehearsed a worker's life: nothing secret or random of it is in those that are forked from it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

_PROGRAM = """
import asyncio, json, os, random, re, ssl, sys, tempfile
from pathlib import Path
import aiortc.rtcdtlstransport as dtls
import relay_worker.process.preload
from relay_worker.process import rehearsal

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
    for place, (ssrc, (sequence, timestamp)) in enumerate(sorted(sink.first.items())):
        found |= {f"ssrc {place}": ssrc, f"sequence {place}": sequence, f"timestamp {place}": timestamp}
    found |= {f"srtp key {place}": key for place, key in enumerate(keys)}
    found |= {"random": random.random(), "openssl": ssl.RAND_bytes(16).hex(), "kernel": os.urandom(16).hex()}
    return found

lives = [lived()]
said = rehearsal.rehearse()
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


def test_two_workers_of_a_rehearsed_process_have_nothing_secret_or_random_in_common() -> None:
    ran = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=120, check=True)
    said: str
    lives: list[dict[str, Any]]
    said, lives = json.loads(ran.stdout)
    assert said == "", "one thread, no descriptor"
    assert all(len(life) >= 18 for life in lives), lives
    for name in lives[0]:
        assert len({str(life[name]) for life in lives}) == len(lives), name
