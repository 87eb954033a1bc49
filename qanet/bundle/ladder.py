"""The ladder: names for what ships, from the fastest to the most accurate."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rung:
    """A shipped bundle, and whether each crop's mirror image is parsed too."""

    bundle: str
    flip: bool = False

    def __str__(self) -> str:
        return f"{self.bundle}{', each crop mirrored too' if self.flip else ''}"


LADDER = {"balanced": Rung("ccp13-lite0"), "accurate": Rung("ccp13-lite0", flip=True)}
