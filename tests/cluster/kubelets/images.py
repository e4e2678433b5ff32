"""The images of true nodes, in a root of containerd's that they start from: `python -m tests.cluster.kubelets.images`.

The relay's is built from deploy/Dockerfile, by buildah, which takes no engine, on a Debian of debootstrap's. It is kept
until a file changes that it is made of.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

from tests.cluster import binaries
from tests.cluster.kubelets.containerd import PAUSE, RELAY
from tests.fixtures.product_source import ROOT

_DEBIAN: Final = ("--variant=minbase", "--include=python3,python3-venv,ca-certificates", "bookworm")
_PLAIN: Final = "docker.io/library/this-machine:latest"
"""What Pods of tests name that only want a shell."""
_CERTIFICATES: Final = "etc/ssl/certs/ca-certificates.crt"
_FROM_ROOT: Final = "FROM scratch\nADD root.tar /\n"
_STEP_SECONDS: Final = 1800


def missing() -> str | None:
    """Why there is no image of the relay; None where there is."""
    return None if root().exists() else "the relay's image is not built (make nodes)"


def root() -> Path:
    """Where containerd's root with the images is, or will be: named by all that goes into it."""
    node = binaries.folder(binaries.NODE).name
    found = hashlib.sha256(f"{_DEBIAN} {node}".encode())
    for file in _sources():
        found.update(f"\n{file.relative_to(ROOT)} {file.stat().st_size}\n".encode())
        found.update(file.read_bytes())
    return binaries.cache_folder() / f"images-{found.hexdigest()[:12]}"


def build() -> Path:
    """Build what is missing, and return containerd's root. Raises CalledProcessError after a command has said why."""
    place = root()
    place.parent.mkdir(parents=True, exist_ok=True)
    with binaries.alone(place.parent / "images.lock"):
        if not place.exists():
            if wanting := [name for name in ("buildah", "debootstrap") if shutil.which(name) is None]:
                sys.exit(f"{', '.join(wanting)} not found (apt install {' '.join(wanting)})")
            for left in (*place.parent.glob("making-*"), *place.parent.glob("images-*")):
                shutil.rmtree(left)
            with tempfile.TemporaryDirectory(prefix="making-images-", dir=place.parent) as scratch:
                _build(Path(scratch), _debian(place.parent)).rename(place)
    print(f"the relay's image is in {place}")
    return place


def _sources() -> list[Path]:
    """The recipes, and what .dockerignore lets through to the Dockerfile."""
    ignore = ROOT / ".dockerignore"
    named = [ROOT / line[1:] for line in ignore.read_text().splitlines() if line.startswith("!")]
    recipe = {Path(__file__), Path(__file__).with_name("containerd.py"), ROOT / "deploy/Dockerfile", ignore}
    files = {file for place in named for file in (place, *place.rglob("*")) if file.is_file()}
    return sorted({file for file in files if file.suffix not in (".so", ".pyc")} | recipe)


def _debian(cache: Path) -> Path:
    """A Debian with Python, as an archive of its files."""
    place = cache / f"debian-{hashlib.sha256(' '.join(_DEBIAN).encode()).hexdigest()[:12]}.tar"
    if not place.exists():
        print("making a Debian with debootstrap", flush=True)
        with tempfile.TemporaryDirectory(prefix="making-debian-", dir=cache) as scratch:
            root = Path(scratch, "root")
            _run("unshare", "--mount", "debootstrap", *_DEBIAN, str(root))
            # This machine's trusted certificates, so that pip in it reaches the same index.
            shutil.copy(Path("/", _CERTIFICATES), root / _CERTIFICATES)
            _run("tar", "-C", str(root), "-cf", f"{scratch}/root.tar", ".")
            Path(scratch, "root.tar").rename(place)
    return place


def _build(scratch: Path, debian: Path) -> Path:
    """Build the relay's image by deploy/Dockerfile, and have containerd unpack it."""
    # What buildah mounts goes with its mount namespace.
    buildah = ["unshare", "--mount", "buildah", "--root", f"{scratch}/store", "--runroot", f"{scratch}/run"]
    buildah += ["--storage-driver", "overlay"]
    make = [*buildah, "bud", "--isolation", "chroot", "--network", "host", "--format", "docker"]
    base = scratch / "debian"
    base.mkdir()
    (base / "root.tar").hardlink_to(debian)
    (base / "Dockerfile").write_text(_FROM_ROOT)
    _run(*make, "--tag", "localhost/debian", str(base))
    print("building the relay's image by deploy/Dockerfile", flush=True)
    options = ["--build-arg", "BASE=localhost/debian", "--ignorefile", str(ROOT / ".dockerignore")]
    _run(*make, *options, "--tag", "localhost/relay", "--file", str(ROOT / "deploy/Dockerfile"), str(ROOT))
    made, (relay, plain, pause) = scratch / "root", (scratch / f"{name}.tar" for name in ("relay", "plain", "pause"))
    _run(*buildah, "push", "localhost/relay", f"docker-archive:{relay}:{RELAY}")
    _run(*buildah, "push", "localhost/debian", f"docker-archive:{plain}:{_PLAIN}")
    _pause(pause)
    print("unpacking it", flush=True)
    apart = ("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc")
    fill = (sys.executable, "-m", "tests.cluster.kubelets.containerd")
    _run(*apart, *fill, str(made), str(relay), str(plain), str(pause))
    return made


def _run(*command: str) -> None:
    """Run a command, of which only a failure is worth reading."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_STEP_SECONDS,
        check=False,
    )
    if done.returncode:
        print(done.stdout[-5000:], file=sys.stderr)
        raise subprocess.CalledProcessError(done.returncode, command)


def _pause(archive: Path) -> None:
    """The image of what holds a Pod's namespaces, in docker-archive's form: one program."""
    program = (binaries.folder(binaries.NODE) / "pause").read_bytes()
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as files:
        _add(files, "pause", program)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config: dict[str, Any] = {"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/pause"]}}
    config["rootfs"] = {"type": "layers", "diff_ids": [f"sha256:{digest}"]}
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as made:
        _add(made, "layer.tar", layer.getvalue())
        _add(made, "config.json", json.dumps(config).encode())
        _add(made, "manifest.json", json.dumps(manifest).encode())


def _add(archive: tarfile.TarFile, path: str, content: bytes) -> None:
    member = tarfile.TarInfo(path)
    member.size, member.mode = len(content), 0o755
    archive.addfile(member, io.BytesIO(content))


if __name__ == "__main__":
    try:
        build()
    except subprocess.CalledProcessError as error:
        sys.exit(f"the relay's image was not built: {error}")
