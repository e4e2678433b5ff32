from typing import Any

# `Compiled` in the package says what it has.
def __getattr__(name: str) -> Any: ...
