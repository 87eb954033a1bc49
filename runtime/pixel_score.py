"""The kernel tail on its own: logits and boxes in, labels and scores at image resolution out."""

import operator
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from qanet import quality
from qanet.errors import QanetError
from qanet.quality import PIXEL_SCORE_THRESHOLD, PixelScores

BACKENDS = ("numpy", "native", "cuda")


def pixel_score(
    logits: ArrayLike,
    boxes: ArrayLike,
    image_size: tuple[int, int],
    threshold: float = PIXEL_SCORE_THRESHOLD,
    backend: str = "auto",
    flipped_logits: ArrayLike | None = None,
    flip_pairs: Sequence[tuple[int, int]] = (),
) -> PixelScores:
    """Labels and pixel scores of N persons; arguments and errors as `qanet.quality.pixel_score`.

    Args:
        backend: "numpy" the reference; "native" C++ with vectors and threads; "cuda" a GPU. "auto" takes "native"
            where its library was built and else "numpy": logits that lie on the host are not worth a trip to a GPU.
    Raises:
        QanetError: an argument that does not fit, or a back-end that this installation or machine does not have.
    """
    if backend not in ("auto", *BACKENDS):
        raise QanetError("unknown back-end", expected=f"auto or one of {', '.join(BACKENDS)}", got=backend)
    if backend == "auto":
        from qanet.runtime.native import library

        backend = "native" if library.available() else "numpy"
    if flipped_logits is not None:
        _check_pairs(flip_pairs, np.shape(logits))
    if backend == "native":
        from qanet.runtime.native import tail

        return tail.pixel_score(logits, boxes, image_size, threshold, flipped_logits, flip_pairs)
    if backend == "cuda":
        try:
            from qanet.runtime.cuda import tail as cuda_tail
        except ImportError as error:
            raise QanetError(
                "the cuda back-end cannot be had",
                expected="PyCUDA and an NVIDIA driver",
                got=error,
                next_command="pip install 'qanet-edge[tensorrt]', or backend=\"auto\" for the CPU",
            ) from error
        return cuda_tail.pixel_score(logits, boxes, image_size, threshold, flipped_logits, flip_pairs)
    return quality.pixel_score(logits, boxes, image_size, threshold, flipped_logits, flip_pairs)


def _check_pairs(flip_pairs: Sequence[tuple[int, int]], shape: tuple[int, ...]) -> None:
    """Two different classes a pair, the same for every back-end."""
    if len(shape) != 4:
        return  # refused by name later
    classes = shape[1]
    try:
        fits = all(0 <= operator.index(a) < classes and 0 <= operator.index(b) < classes for a, b in flip_pairs)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise QanetError("flip_pairs do not fit", expected=f"pairs of classes below {classes}", got=flip_pairs)
