"""`python -m tests.unit.interface` compares what programs read with what was recorded; `--record` records it anew."""

from __future__ import annotations

import sys

from tests.unit.interface.recording import difference, record
from tests.unit.interface.surfaces import SURFACES

if sys.argv[1:] == ["--record"]:
    record()
elif sys.argv[1:]:
    sys.exit(__doc__)
else:
    sys.exit("\n\n".join(filter(None, map(difference, SURFACES))) or None)
