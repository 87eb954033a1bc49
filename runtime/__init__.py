"""Bundle and pixels in, ParsingResult out. Nothing here imports torch."""

from typing import Any

__all__ = ["Parser", "load", "pixel_score"]


def __getattr__(name: str) -> Any:
    # Names resolve on first use, so that importing a submodule costs only that submodule.
    if name == "pixel_score":
        from qanet.runtime.pixel_score import pixel_score

        return pixel_score
    if name in ("Parser", "load"):
        from qanet.runtime import parser

        return getattr(parser, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
