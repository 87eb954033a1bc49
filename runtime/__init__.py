"""A bundle and pixels in, people out. Nothing here imports torch."""

from typing import Any

__all__ = ["Parser", "load"]


def __getattr__(name: str) -> Any:
    # Names resolve on first use, so that importing a submodule costs only that submodule.
    if name in ("Parser", "load"):
        from qanet.runtime import parser

        return getattr(parser, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
