#!/usr/bin/env bash
# lightkube 1.0.1, and Kubernetes' own Python client 37.0.2, write a Lease that Kubernetes cannot read when its time
# happens to fall on a whole second. Seen 2026-11-30, with kubectl 1.20.2, which decodes as the API server does.
#
# Guess: renewTime is typed as a datetime, and what is left away at zero is a matter of taste: the API's description says
# "format: date-time" (RFC 3339, section 5.6: the fraction is optional), and creationTimestamp is read either way.
# Seen: a datetime without microseconds is written without a fraction, and Kubernetes reads a MicroTime by the one layout
# with six digits: 'cannot parse "Z" as ".000000"'. So one renewal in a million is answered with 400, or every one of a
# program that rounds its times. Known for clients that write milliseconds, and so fail at once (kubernetes-client/
# javascript#828, haskell#56); kubernetes/kubernetes#141204 would read any fraction. These two fail once in weeks,
# when renewing every other second.
#
# It takes python3 of 3.11 or later, and Debian 12's apt-get on x86-64.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check lightkube==1.0.1 lightkube-models==1.37.0.8 kubernetes==37.0.2
(cd "$dir" && apt-get -o APT::Sandbox::User= -qq download "kubernetes-client=1.20.5+really1.20.2-1.1+deb12u1")
dpkg-deb --extract "$dir"/kubernetes-client_*.deb "$dir/root"

HOME=$dir timeout 120 "$dir/venv/bin/python" - "$dir" <<'PY'
import datetime
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import kubernetes.client as own
from lightkube.models.coordination_v1 import Lease, LeaseSpec
from lightkube.models.meta_v1 import ObjectMeta

folder = Path(sys.argv[1])


def by_lightkube(at: datetime.datetime) -> dict[str, object]:
    return Lease(metadata=ObjectMeta(name="seat"), spec=LeaseSpec(renewTime=at)).to_dict()


def by_kubernetes(at: datetime.datetime) -> dict[str, object]:
    metadata, spec = own.V1ObjectMeta(name="seat"), own.V1LeaseSpec(renew_time=at)
    lease = own.V1Lease(api_version="coordination.k8s.io/v1", kind="Lease", metadata=metadata, spec=spec)
    return own.ApiClient().sanitize_for_serialization(lease)


def read(lease: dict[str, object]) -> str:
    """What kubectl says of it: `set env` decodes the object by its type first, and then finds no container in a Lease."""
    file = folder / "lease.json"
    file.write_text(json.dumps(lease))
    command = [str(folder / "root/usr/bin/kubectl"), "set", "env", "--local", "-f", str(file), "A=b"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30).stderr
    return "read" if "the object is not a pod" in said else said.partition("unmarshalerDecoder: ")[2].partition(", error")[0]


seen = {}
for package, write in (("lightkube", by_lightkube), ("kubernetes", by_kubernetes)):
    print(package, importlib.metadata.version(package))
    for microsecond in (1, 0):
        lease = write(datetime.datetime(2026, 11, 29, 22, 0, 0, microsecond, tzinfo=datetime.timezone.utc))
        seen[package, microsecond] = said = read(lease)
        print(f"  {lease['spec']}: {said}")
same = all((said == "read") == (microsecond == 1) for (_, microsecond), said in seen.items())
same = same and all('as ".000000"' in said for (_, microsecond), said in seen.items() if not microsecond)
sys.exit(0 if same else "changed: one microsecond was to be read, and a whole second refused")
PY
