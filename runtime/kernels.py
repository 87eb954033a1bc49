"""Kernels of a frame: crops of people, letterboxes, and labels with pixel scores; one implementation chosen at load.

`choose_kernels()` gives C++ where the library was built (`qanet.runtime.native`), else NumPy and OpenCV. Results are
those of `qanet.geometry` and `qanet.quality`, to a rounding.
"""

import operator
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qanet import geometry, quality
from qanet.errors import QanetError
from qanet.quality import PIXEL_SCORE_THRESHOLD, PixelScores
from qanet.runtime import native

BACKENDS = ("numpy", "native", "cuda")


class Kernels:
    """NumPy and OpenCV: the definitions themselves. Safe across threads, as are the others.

    Attributes:
        name: one of BACKENDS.
    """

    name = "numpy"

    def crop_people(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float32], crop_hw: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """Crops of one frame.

        Args:
            image: (H, W, 3) uint8.
            boxes: (N, 4) crop boxes, see `qanet.geometry.crop_boxes`.
            crop_hw: (h, w) pixels.
        Returns:
            (N, h, w, 3) uint8, channels as in the image.
        """
        return geometry.crop_people(image, boxes, crop_hw)

    def letterboxed(self, image: NDArray[np.uint8], input_hw: tuple[int, int]) -> tuple[NDArray[np.uint8], float]:
        """An (H, W, 3) uint8 image in its own aspect on a grey canvas of `input_hw`, and its scale factor."""
        return geometry.letterboxed(image, input_hw)

    def pixel_score(
        self,
        logits: ArrayLike,
        boxes: ArrayLike,
        image_size: tuple[int, int],
        threshold: float = PIXEL_SCORE_THRESHOLD,
        flipped_logits: ArrayLike | None = None,
        flip_pairs: Sequence[tuple[int, int]] = (),
    ) -> PixelScores:
        """Labels and pixel scores of N people; arguments and result as `qanet.quality.pixel_score`.

        Raises:
            QanetError: an argument that does not fit.
        """
        if flipped_logits is not None:
            _check_pairs(flip_pairs, np.shape(logits))
        return self._score()(logits, boxes, image_size, threshold, flipped_logits, flip_pairs)

    def _score(self) -> Callable[..., PixelScores]:
        """The function that scores; it takes the arguments of `pixel_score` in their order."""
        return quality.pixel_score


class NativeKernels(Kernels):
    """C++ with vectors and threads; a letterbox's pixel is the mean of its area, by the samples of a crop."""

    name = "native"

    def crop_people(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float32], crop_hw: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """See `Kernels.crop_people`."""
        return native.crop_people(image, boxes, crop_hw)

    def letterboxed(self, image: NDArray[np.uint8], input_hw: tuple[int, int]) -> tuple[NDArray[np.uint8], float]:
        """See `Kernels.letterboxed`."""
        return geometry.letterboxed(image, input_hw, _resized)

    def _score(self) -> Callable[..., PixelScores]:
        return native.pixel_score


class CudaKernels(Kernels):
    """CUDA kernels on host arrays: for checks and measurements; an engine on the GPU has `cuda.device_path` instead."""

    name = "cuda"

    def crop_people(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float32], crop_hw: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """See `Kernels.crop_people`."""
        from qanet.runtime.cuda.crop import crop_people

        return crop_people(image, boxes, crop_hw)

    def _score(self) -> Callable[..., PixelScores]:
        from qanet.runtime.cuda.tail import pixel_score

        return pixel_score


def choose_kernels(name: str | None = None) -> Kernels:
    """The kernels of this installation.

    Args:
        name: one of BACKENDS; None: "native" where its library was built, else "numpy". Logits on the host are not
            worth a trip to a GPU, so "cuda" is only taken by name.
    Raises:
        QanetError: an unknown name, or kernels that this installation or machine does not have.
    """
    if name is None:
        return NativeKernels() if native.available() else Kernels()
    if name == "numpy":
        return Kernels()
    if name == "native":
        native.required()
        return NativeKernels()
    if name == "cuda":
        from qanet.runtime.cuda.device import open_device

        open_device()
        return CudaKernels()
    raise QanetError("unknown back-end", expected=f"one of {', '.join(BACKENDS)}", got=name)


def _resized(image: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
    """The whole image as one crop; by OpenCV where it shrinks so much that a crop's samples leave pixels out."""
    if max(image.shape[0] / rows, image.shape[1] / columns) > geometry.MAX_SUBSAMPLES:
        return geometry.resized(image, rows, columns)
    box = np.array([[0, 0, image.shape[1], image.shape[0]]], np.float32)
    return native.crop_people(image, box, (rows, columns))[0]


def _check_pairs(flip_pairs: Sequence[tuple[int, int]], shape: tuple[int, ...]) -> None:
    """QanetError unless every pair names classes that there are; the same check for every back-end."""
    if len(shape) != 4:
        return  # the shape is refused by name later
    classes = shape[1]
    try:
        fits = all(0 <= operator.index(a) < classes and 0 <= operator.index(b) < classes for a, b in flip_pairs)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise QanetError("flip_pairs do not fit", expected=f"pairs of classes below {classes}", got=flip_pairs)
