#!/usr/bin/env bash
# google-nest-sdm 7.1.5 installs on Python 3.11 and cannot be imported there. Seen 2026-11-28, Linux, Python 3.11.7.
#
# Guess: its metadata says Requires-Python >=3.11, so the newest version that pip picks on 3.11 works on 3.11.
# Seen: importing its camera traits is a SyntaxError: from 7.0.0 on it uses the syntax for type parameters of Python 3.12
# (PEP 695). 6.1.5 is the newest that 3.11 can import; 9.x says >=3.13.
#
# It takes Python 3.11 as `python3`, or as PYTHON.
set -euo pipefail
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "Python 3.11 is needed (PYTHON=…)"; exit 1; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$python" -m venv "$dir/venv"

import_it() { "$dir/venv/bin/python" -c 'import google_nest_sdm.device_manager, google_nest_sdm.google_nest_subscriber' 2>&1 | tail -1; }

"$dir/venv/bin/pip" install --quiet --disable-pip-version-check google-nest-sdm==7.1.5
grep -h '^Requires-Python' "$dir"/venv/lib/python3.11/site-packages/google_nest_sdm-7.1.5.dist-info/METADATA
seven=$(import_it || true)
echo "google-nest-sdm 7.1.5 on Python 3.11: $seven"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check google-nest-sdm==6.1.5
six=$(import_it || true)
echo "google-nest-sdm 6.1.5 on Python 3.11: ${six:-imported}"
case "$seven" in SyntaxError*) ;; *) echo "changed: a SyntaxError was expected of 7.1.5"; exit 1 ;; esac
[ -z "$six" ] || { echo "changed: 6.1.5 was expected to be imported"; exit 1; }
