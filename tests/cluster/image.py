"""The relay's image without a container engine: deploy/Dockerfile's settings, and this checkout where its files are."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import certifi

from tests.cluster.api import Json
from tests.fixtures.product_source import ROOT

PLACE: Final = "/opt/nest-relay"
"""Where the image has its virtual environment."""
SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROGRAM: Final = """#!{place}/bin/python
import sys
from {package}.__main__ import main
sys.exit(main())
"""


@dataclass(frozen=True, slots=True)
class Image:
    """What an image says of how it is run. `folders` are those of this machine by their place in the container."""

    entrypoint: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    user: int | None = None
    group: int | None = None
    working_directory: str = "/"
    folders: dict[str, str] = field(default_factory=dict)


THIS_MACHINE: Final = Image(
    environment={"PATH": f"{Path(sys.executable).parent}:{SYSTEM_PATH}", "PYTHONUNBUFFERED": "1"}
)
"""Every image that is not another one: no entrypoint, so that Pods name a command."""


def relay_image(folder: Path, trusted: bytes) -> Image:
    """The image that deploy/Dockerfile makes, with an environment that is made in `folder`.

    It trusts one certificate authority alone: as Google and Cloudflare appear whom that has signed.
    """
    text = (ROOT / "deploy" / "Dockerfile").read_text().rpartition("\nFROM ")[2].replace("\\\n", " ")
    variables = dict(re.findall(r"(\w+)=(\S+)", "".join(re.findall(r"^ENV (.*)$", text, re.MULTILINE))))
    variables["PATH"] = variables["PATH"].replace("$PATH", SYSTEM_PATH)
    user, group = re.findall(r"^USER (\d+):(\d+)$", text, re.MULTILINE)[-1]
    return Image(
        entrypoint=_words(text, "ENTRYPOINT"),
        arguments=_words(text, "CMD"),
        # The checkout stands for the installed packages.
        environment=variables | {"PYTHONPATH": f"{PLACE}/source"},
        user=int(user),
        group=int(group),
        folders=_environment(folder, trusted),
    )


def _words(text: str, instruction: str) -> list[str]:
    """The words of an instruction in JSON's form."""
    return shlex.split(re.findall(rf"^{instruction} \[(.*)\]$", text, re.MULTILINE)[-1].replace(",", " "))


def _environment(folder: Path, trusted: bytes) -> dict[str, str]:
    """A virtual environment with ours's packages, whose programs do not name a path of ours: a Pod may hide that."""
    (folder / "bin").mkdir(parents=True)
    for empty in ("lib", "source"):
        (folder / empty).mkdir()
    (folder / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    (folder / "trusted.pem").write_bytes(trusted)
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", folder)
    for package in ("relay_supervisor", "relay_worker"):
        program = folder / "bin" / package.replace("_", "-")
        program.write_text(_PROGRAM.format(place=PLACE, package=package))
        program.chmod(0o755)
    authorities = Path(certifi.where()).relative_to(sys.prefix)
    folders = {PLACE: str(folder), f"{PLACE}/lib": f"{sys.prefix}/lib", f"{PLACE}/source": str(ROOT)}
    return folders | {f"{PLACE}/{authorities}": str(folder / "trusted.pem")}


def image_of(name: str, images: dict[str, Json]) -> Image:
    """The image of that name, whatever its tag."""
    repository = name.partition("@")[0]
    last = repository.rpartition("/")[2]
    if ":" in last:
        repository = repository.rpartition(":")[0]
    return Image(**images[repository]) if repository in images else THIS_MACHINE
