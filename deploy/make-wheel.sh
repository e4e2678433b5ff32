#!/usr/bin/env bash
# Makes the wheel of this tree, into dist/: one for every Python from 3.11 on, and for every Linux with glibc 2.17 or newer.
#
#   deploy/make-wheel.sh .venv            # for this machine's processor; `make wheel`
#   deploy/make-wheel.sh .venv aarch64    # for another, cross-compiled; `make wheel MACHINE=aarch64`
#
# It needs a C compiler and Python's headers; for another processor, Debian's gcc-aarch64-linux-gnu or its like. There
# this Python's headers serve as well: of the limited API, nothing differs between 64-bit processors.
set -euo pipefail

bin=$(cd "$1/bin" && pwd)
machine=${2:-}
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work" build' EXIT

if [ -n "$machine" ]; then
    compiler=$machine-linux-gnu-gcc
    command -v "$compiler" >/dev/null || { echo "$compiler is missing: apt install gcc-$machine-linux-gnu"; exit 1; }
    export _PYTHON_HOST_PLATFORM=linux-$machine CC=$compiler LDSHARED="$compiler -shared"
fi
rm -rf build # what an earlier run, for another processor, has compiled
"$bin/pip" --disable-pip-version-check wheel --verbose --no-deps --no-build-isolation --wheel-dir "$work" . >"$work/log" 2>&1 \
    || { tail -20 "$work/log"; exit 1; }
if ! "$bin/python" -m zipfile -l "$work"/*.whl | grep '^relay_worker/native/_runs.*\.so ' >/dev/null; then
    grep -E 'error: |building extension' "$work/log" || tail -5 "$work/log"
    echo "the compiled data path is missing from the wheel: apt install gcc libc6-dev python3-dev"
    exit 1
fi
PATH=$bin:$PATH "$bin/auditwheel" repair --wheel-dir dist "$work"/*.whl 2>"$work/log" || { cat "$work/log"; exit 1; }
ls dist/*.whl
