"""The camera page is for people without a token: every file that it takes is served to them, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from relay_supervisor.http import guard

STATIC = Path(guard.__file__).parent / "static"


def test_the_files_that_the_camera_page_imports_are_public_and_no_others() -> None:
    needed, left = set[str](), {"watch.js"}
    while left:
        name = left.pop()
        needed.add(name)
        left |= set(re.findall(r'from "\./([a-z]+\.js)"', (STATIC / name).read_text())) - needed
    public = {path.removeprefix("/static/") for path in guard._PUBLIC if path.endswith(".js")}
    assert needed == public
