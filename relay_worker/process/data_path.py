"""Which data path workers use, for those who configure and report it."""

from __future__ import annotations

from relay_worker import native


def require(setting: native.Setting) -> None:
    """Raise ConfigError when the compiled one is demanded and is not there."""
    native.decide(setting)


def lost() -> str:
    """What this installation does without, in words; empty where nothing is missing."""
    why = native.missing()
    return f"there is no compiled data path ({why}): Python moves the packets, at a higher cost of CPU" if why else ""


def use(setting: native.Setting) -> str:
    """Choose for this process, as a worker with this setting does, and say so in words. Raises ConfigError."""
    native.choose(setting)
    return described(setting)


def is_compiled(setting: native.Setting) -> bool:
    """Whether workers with this setting use the compiled one on this machine. Raises ConfigError."""
    return native.decide(setting) is not None


def described(setting: native.Setting) -> str:
    """What workers with this setting use, in words."""
    if native.missing():
        return f"python ({native.missing()})"
    return "compiled" if is_compiled(setting) else "python (the compiled one is there)"
