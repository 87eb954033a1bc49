"""The kernel tail on its own: logits and boxes in, labels and scores at image resolution out."""

from collections.abc import Sequence

from numpy.typing import ArrayLike

from qanet import quality
from qanet.errors import QanetError
from qanet.quality import PIXEL_SCORE_THRESHOLD, PixelScores

BACKENDS = ("numpy",)


def pixel_score(
    logits: ArrayLike, boxes: ArrayLike, image_size: tuple[int, int], threshold: float = PIXEL_SCORE_THRESHOLD,
    backend: str = "auto", flipped_logits: ArrayLike | None = None, flip_pairs: Sequence[tuple[int, int]] = (),
) -> PixelScores:  # fmt: skip
    """Labels and pixel scores of N persons; arguments and errors as `qanet.quality.pixel_score`.

    Args:
        backend: "auto" takes the fastest that is installed.
    """
    if backend not in ("auto", *BACKENDS):
        raise QanetError("unknown back-end", expected=f"auto or one of {', '.join(BACKENDS)}", got=backend)
    return quality.pixel_score(logits, boxes, image_size, threshold, flipped_logits, flip_pairs)
