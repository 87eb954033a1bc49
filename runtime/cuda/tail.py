"""The kernel tail on a GPU: quarter-resolution logits in, labels at image resolution and scores out.

Downloaded are, per person, the uint8 labels of its region and C floats.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qanet.errors import QanetError
from qanet.quality import PIXEL_SCORE_THRESHOLD, PixelScores, check_arguments, region_of
from qanet.quality.sampling import check_maps
from qanet.runtime.cuda.gpu_context import DeviceArray, GpuContext, Launch, Tensor, fetch, shared_context

TILE_WIDTH, TILE_HEIGHT = 32, 8  # image pixels of a block, a thread each
_POOL_FLOATS = 10_240  # 40 KiB: the most shared memory that needs no opt-in with the kernel's static part
_FINISH_THREADS = 256
_LABEL_ALIGNMENT = 256  # bytes
_LOGIT_TYPES = {np.dtype(np.float32): "f32", np.dtype(np.float16): "f16"}


@dataclass(frozen=True)
class Regions:
    """Where N people's labels lie: on the image, and one after another in memory."""

    rois: NDArray[np.int32]  # (N, 4) x0 y0 x1 y1
    offsets: NDArray[np.int64]  # (N,) bytes from the first label
    nbytes: int  # of all labels
    tiles: int  # blocks of the person that needs most of them, 1 or more

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) pixels of each."""
        return [(int(y1 - y0), int(x1 - x0)) for x0, y0, x1, y1 in self.rois]


def plan_regions(boxes: NDArray[np.float32], map_hw: tuple[int, int], image_size: tuple[int, int]) -> Regions:
    """Regions of (N, 4) xyxy boxes, whose logits are (h, w), on an image of (H, W) pixels."""
    rois = np.array([region_of(box, map_hw, image_size) for box in boxes], np.int32).reshape(-1, 4)
    width, height = (rois[:, 2] - rois[:, 0]).astype(np.int64), (rois[:, 3] - rois[:, 1]).astype(np.int64)
    ends = np.cumsum(width * height)
    offsets = np.concatenate([[0], ends[:-1]]).astype(np.int64) if len(rois) else np.zeros(0, np.int64)
    tiles = -(-width // TILE_WIDTH) * -(-height // TILE_HEIGHT)
    return Regions(rois, offsets, int(ends[-1]) if len(rois) else 0, max(int(tiles.max(initial=1)), 1))


def flip_classes(num_classes: int, flip_pairs: Sequence[tuple[int, int]]) -> NDArray[np.int32]:
    """(C,) int32: which class of the mirrored view each class is.

    Raises:
        QanetError: a pair names a class that there is not.
    """
    order = np.arange(num_classes, dtype=np.int32)
    for left, right in flip_pairs:
        if not (0 <= left < num_classes and 0 <= right < num_classes):
            raise QanetError("a flip pair is out of range", expected=f"classes below {num_classes}", got=(left, right))
        order[left], order[right] = right, left
    return order


@dataclass(frozen=True)
class ParameterLayout:
    """Byte offsets of the block that goes up."""

    offsets: int
    boxes: int
    rois: int
    classes: int
    nbytes: int


def parameter_layout(count: int, num_classes: int) -> ParameterLayout:
    """For N people and C classes."""
    return ParameterLayout(0, 8 * count, 24 * count, 40 * count, 40 * count + 4 * num_classes)


def pack_parameters(
    boxes: NDArray[np.float32], regions: Regions, classes: NDArray[np.int32], out: NDArray[np.uint8]
) -> None:
    """Write the block that goes up into (nbytes,) uint8."""
    layout = parameter_layout(len(boxes), len(classes))
    parts = (
        (layout.offsets, regions.offsets),
        (layout.boxes, np.ascontiguousarray(boxes, np.float32)),
        (layout.rois, regions.rois),
        (layout.classes, classes),
    )
    for start, values in parts:
        out[start : start + values.nbytes] = values.reshape(-1).view(np.uint8)


@dataclass(frozen=True)
class ResultLayout:
    """Byte offsets of the block that comes down."""

    pixel_scores: int
    part_scores: int
    flags: int
    labels: int
    nbytes: int


def result_layout(count: int, num_classes: int, label_bytes: int) -> ResultLayout:
    """For N people, C classes and the labels' bytes."""
    flags = 4 * count * num_classes
    labels = -(-(flags + 4 * count) // _LABEL_ALIGNMENT) * _LABEL_ALIGNMENT
    return ResultLayout(0, 4 * count, flags, labels, labels + label_bytes)


@dataclass(frozen=True)
class WorkspaceLayout:
    """Byte offsets of what the kernels keep between them, all zeros before and after."""

    sums: int
    flags: int
    nbytes: int


def workspace_layout(count: int, num_classes: int) -> WorkspaceLayout:
    """For N people and C classes."""
    flags = 16 * count * num_classes
    return WorkspaceLayout(0, flags, flags + 4 * count)


def score_launch(
    dtype: np.dtype,
    shape: tuple[int, int, int, int],
    tiles: int,
    threshold: float,
    logits: int,
    flipped: int,
    parameters: int,
    labels: int,
    workspace: int,
) -> Launch:
    """The launch of pixel_score.

    Args:
        dtype: float32 or float16, of the logits.
        shape: (N, C, h, w) of the logits.
        tiles: blocks a person.
        threshold: T.
        logits, flipped, parameters, labels, workspace: addresses; flipped is 0 without a mirrored view.
    Raises:
        QanetError: logits of another type, or too many people for a launch.
    """
    if dtype not in _LOGIT_TYPES:
        raise QanetError("the kernels do not take these logits", expected="float32 or float16", got=dtype)
    count, num_classes, map_height, map_width = shape
    layout = parameter_layout(count, num_classes)
    kept = workspace_layout(count, num_classes)
    arguments = (
        logits,
        flipped,
        parameters + layout.classes,
        parameters + layout.boxes,
        parameters + layout.rois,
        parameters + layout.offsets,
        num_classes,
        map_height,
        map_width,
        float(threshold),
        labels,
        workspace + kept.sums,
        workspace + kept.flags,
        _POOL_FLOATS,
    )
    grid, block = (tiles, count, 1), (TILE_WIDTH, TILE_HEIGHT, 1)
    function = f"pixel_score_{_LOGIT_TYPES[dtype]}"
    return Launch("pixel_score", function, "PPPPPPiiifPPPi", arguments, grid, block, 4 * _POOL_FLOATS)


def finish_launch(count: int, num_classes: int, workspace: int, results: int) -> Launch:
    """The launch that turns N people's sums into scores, for the results at an address, and zeroes the workspace."""
    layout, kept = result_layout(count, num_classes, 0), workspace_layout(count, num_classes)
    arguments = (
        workspace + kept.sums,
        workspace + kept.flags,
        num_classes,
        results + layout.pixel_scores,
        results + layout.part_scores,
        results + layout.flags,
    )
    block = (_FINISH_THREADS, 1, 1)
    return Launch("pixel_score", "pixel_score_finish", "PPiPPP", arguments, (count, 1, 1), block)


class DeviceScores:
    """N people's labels and scores on the GPU, while the block of `score_people` lasts.

    Attributes:
        regions: where they lie.
        image_size: (H, W) pixels.
        launches: what was queued; queued again it gives the same results, so that a benchmark can repeat it.
    """

    def __init__(
        self,
        gpu: GpuContext,
        regions: Regions,
        views: dict[str, DeviceArray],
        image_size: tuple[int, int],
        results: int,
        launches: tuple[Launch, ...] = (),
    ):
        num_classes = views["logits"].shape[1]
        self._gpu, self._views, self._num_classes, self._results = gpu, views, num_classes, results
        self.regions, self.image_size, self.launches = regions, image_size, launches
        count = len(regions.rois)
        self._layout = result_layout(count, num_classes, regions.nbytes)

    def download(self) -> PixelScores:
        """Everything to the host, in one copy; waits for it.

        Raises:
            QanetError: a logit is NaN or infinite, in the words of the reference, or CUDA failed.
        """
        count, layout = len(self.regions.rois), self._layout
        if count == 0:
            parts = np.zeros((0, self._num_classes - 1), np.float32)
            return PixelScores(self.regions.rois, [], np.zeros(0, np.float32), parts, self.image_size)
        gpu = self._gpu
        with gpu.active("fetching labels"), gpu.pool.pinned("tail.results", layout.nbytes, gpu.stream) as pinned:
            gpu.device.driver.memcpy_dtoh_async(pinned.host, self._results, gpu.stream.driver_stream)
            gpu.stream.synchronize()
            self._refuse(pinned.host[layout.flags : layout.flags + 4 * count].view(np.uint32))
            scores = pinned.host[: 4 * count * self._num_classes].view(np.float32).copy()
            labels = [
                pinned.host[layout.labels + start : layout.labels + start + height * width]
                .reshape(height, width)
                .copy()
                for start, (height, width) in zip(self.regions.offsets, self.regions.sizes)
            ]
        parts = scores[count:].reshape(count, -1)
        return PixelScores(self.regions.rois, labels, scores[:count], parts, self.image_size)

    def _refuse(self, flags: NDArray[np.uint32]) -> None:
        """Raise where the kernel saw a number that is not finite; only then are logits fetched, to count them."""
        for bit, (name, view) in enumerate(self._views.items()):
            if (flags >> bit & 1).any():
                check_maps(name, fetch(self._gpu, view))


@contextmanager
def score_people(
    gpu: GpuContext,
    logits: DeviceArray,
    boxes: ArrayLike,
    image_size: tuple[int, int],
    threshold: float = PIXEL_SCORE_THRESHOLD,
    flipped_logits: DeviceArray | None = None,
    flip_pairs: Sequence[tuple[int, int]] = (),
) -> Iterator[DeviceScores]:
    """Queue the tail for logits that are on the GPU; the block holds the GPU context; the results last as long.

    Args:
        gpu: the context on whose stream the logits were queued.
        logits: (N, C, h, w) float32 or float16. `download` raises where the kernel found one that is not finite.
        boxes: (N, 4) xyxy crop boxes in continuous image pixels, on the host.
        image_size: (H, W) pixels.
        threshold: T; pixels less certain take no part in a score.
        flipped_logits: as logits, of the mirrored crops; the two views' probabilities are averaged.
        flip_pairs: classes that swap under a mirror.
    Raises:
        QanetError: an argument that does not fit, or CUDA failed.
    """
    where = _check(logits, boxes, image_size, threshold)
    if flipped_logits is not None and (flipped_logits.shape, flipped_logits.dtype) != (logits.shape, logits.dtype):
        raise QanetError(
            "flipped_logits do not fit",
            expected=f"{logits.dtype} {logits.shape}",
            got=f"{flipped_logits.dtype} {flipped_logits.shape}",
        )
    count, num_classes, height, width = logits.shape
    views = {"logits": logits} | ({} if flipped_logits is None else {"flipped_logits": flipped_logits})
    classes = flip_classes(num_classes, flip_pairs)
    regions = plan_regions(where, (height, width), image_size)
    size = (int(image_size[0]), int(image_size[1]))
    with gpu.active(f"scoring the pixels of {count} people"), ExitStack() as held:
        if count == 0:
            yield DeviceScores(gpu, regions, views, size, 0)
            return
        parameters = parameter_layout(count, num_classes).nbytes
        up = held.enter_context(Tensor(gpu, "tail.parameters", (parameters,), np.uint8))
        pack_parameters(where, regions, classes, up.host)
        up.send(parameters)
        layout = result_layout(count, num_classes, regions.nbytes)
        down = held.enter_context(gpu.pool.device("tail.results", layout.nbytes, gpu.stream))
        workspace_bytes = workspace_layout(count, num_classes).nbytes
        workspace = held.enter_context(gpu.pool.device("tail.workspace", workspace_bytes, gpu.stream))
        if not workspace.is_zeroed:
            driver = gpu.device.driver
            driver.memset_d8_async(workspace.address, 0, workspace.capacity_bytes, gpu.stream.driver_stream)
        mirrored = 0 if flipped_logits is None else flipped_logits.address
        addresses = (logits.address, mirrored, up.address, down.address + layout.labels, workspace.address)
        shape = (count, num_classes, height, width)
        workspace.is_zeroed = False  # until the second kernel is queued
        launches = (
            score_launch(logits.dtype, shape, regions.tiles, threshold, *addresses),
            finish_launch(count, num_classes, workspace.address, down.address),
        )
        for launch in launches:
            gpu.launch(launch)
        workspace.is_zeroed = True
        yield DeviceScores(gpu, regions, views, size, down.address, launches)


def pixel_score(
    logits: ArrayLike,
    boxes: ArrayLike,
    image_size: tuple[int, int],
    threshold: float = PIXEL_SCORE_THRESHOLD,
    flipped_logits: ArrayLike | None = None,
    flip_pairs: Sequence[tuple[int, int]] = (),
    index: int = 0,
) -> PixelScores:
    """Labels and pixel scores of N people from host arrays; calls of several threads take turns.

    Args:
        index: of the GPU among those that CUDA_VISIBLE_DEVICES leaves.
        The others are those of `qanet.quality.pixel_score`; float16 logits stay float16 on the way up.
    Raises:
        QanetError: an argument that does not fit, no GPU, or CUDA failed.
    """
    views = [_checked_view(logits, boxes, image_size, threshold, "logits")]
    if flipped_logits is not None:
        views.append(_checked_view(flipped_logits, boxes, image_size, threshold, "flipped_logits"))
        if views[1].shape != views[0].shape:
            raise QanetError("flipped_logits do not fit", expected=views[0].shape, got=views[1].shape)
        if views[1].dtype != views[0].dtype:
            views = [view.astype(np.float32, copy=False) for view in views]
    gpu = shared_context(index)
    with gpu.active("scoring pixels"), ExitStack() as held:
        arrays = []
        for name, view in zip(("logits", "flipped_logits"), views):
            tensor = held.enter_context(Tensor(gpu, f"tail.{name}", view.shape, view.dtype))
            tensor.upload(view)
            arrays.append(tensor.first(len(view)))
        mirrored = arrays[1] if len(arrays) > 1 else None
        with score_people(gpu, arrays[0], boxes, image_size, threshold, mirrored, flip_pairs) as scored:
            return scored.download()


def _checked_view(
    logits: ArrayLike, boxes: ArrayLike, image_size: tuple[int, int], threshold: float, name: str
) -> NDArray[np.floating]:
    """The logits in a type that the kernels take, float16 as it is; QanetError for an argument that does not fit."""
    given = np.asarray(logits)
    single, _ = check_arguments(given, boxes, image_size, threshold, name)
    return given if given.dtype == np.float16 else single


def _check(logits: DeviceArray, boxes: ArrayLike, image_size: tuple[int, int], threshold: float) -> NDArray[np.float32]:
    """(N, 4) float32 boxes; QanetError for an argument that does not fit."""
    shape = (*logits.shape[:2], *(min(size, 1) for size in logits.shape[2:]))  # what is checked of h and w
    _, where = check_arguments(np.zeros(shape, logits.dtype), boxes, image_size, threshold)
    return where
