"""The kernel tail on a GPU: quarter-resolution logits in, labels at image resolution and scores out.

What comes back of a person is the uint8 labels of its region and C floats; with the IoU score of the network, C + 1.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qanet.errors import QanetError
from qanet.quality import PIXEL_SCORE_THRESHOLD, PixelScores, check_arguments
from qanet.quality.sampling import check_maps
from qanet.runtime.cuda import tail_plan as plan
from qanet.runtime.cuda.kernel import Launch
from qanet.runtime.cuda.lane import Lane, shared_lane
from qanet.runtime.cuda.tensor import DeviceArray, Tensor, fetch


class DeviceScores:
    """N people's labels and scores on the GPU, while the block of `score_people` lasts.

    Attributes:
        regions: where they lie.
        image_size: (H, W) pixels.
        labels, offsets, rois: addresses for the kernels that follow; see kernels/README.md.
        launches: what was queued; queued again it gives the same results, so that a benchmark can repeat it.
    """

    def __init__(
        self,
        lane: Lane,
        regions: plan.Regions,
        views: dict[str, DeviceArray],
        image_size: tuple[int, int],
        results: int,
        parameters: int,
        launches: tuple[Launch, ...] = (),
    ):
        num_classes = views["logits"].shape[1]
        self._lane, self._views, self._num_classes, self._results = lane, views, num_classes, results
        self.regions, self.image_size, self.launches = regions, image_size, launches
        count = len(regions.rois)
        self._layout = plan.result_layout(count, num_classes, regions.nbytes)
        layout = plan.parameter_layout(count, num_classes)
        self.labels = results + self._layout.labels
        self.offsets, self.rois = parameters + layout.offsets, parameters + layout.rois

    def download(self) -> PixelScores:
        """Everything to the host, in one copy; waits for it.

        Raises:
            QanetError: a logit is NaN or infinite, in the words of the reference, or CUDA failed.
        """
        count, layout = len(self.regions.rois), self._layout
        if count == 0:
            parts = np.zeros((0, self._num_classes - 1), np.float32)
            return PixelScores(self.regions.rois, [], np.zeros(0, np.float32), parts, self.image_size)
        lane = self._lane
        with lane.active("fetching labels"), lane.pool.pinned("tail.results", layout.nbytes, lane.stream) as pinned:
            lane.gpu.driver.memcpy_dtoh_async(pinned.host, self._results, lane.stream.driver_stream)
            lane.stream.synchronize()
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
                check_maps(name, fetch(self._lane, view))


@contextmanager
def score_people(
    lane: Lane,
    logits: DeviceArray,
    boxes: ArrayLike,
    image_size: tuple[int, int],
    threshold: float = PIXEL_SCORE_THRESHOLD,
    flipped_logits: DeviceArray | None = None,
    flip_pairs: Sequence[tuple[int, int]] = (),
    mode: str = "exact",
) -> Iterator[DeviceScores]:
    """Queue the tail for logits that are on the GPU; the block holds the lane, and its results live as long.

    Args:
        lane: whose stream the logits were queued on.
        logits: (N, C, h, w) float32 or float16. The kernel sees whether they are finite; `download` tells.
        boxes: (N, 4) xyxy crop boxes in continuous image pixels, on the host.
        image_size: (H, W) pixels.
        threshold: T; pixels less certain take no part in a score.
        flipped_logits: as logits, of the mirrored crops; the two views' probabilities are averaged.
        flip_pairs: classes that swap under a mirror.
        mode: "exact", as `qanet.quality.pixel_score`; "fast" softmaxes after interpolating straight to the image, so
            that labels along borders differ.
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
    classes = plan.flip_classes(num_classes, flip_pairs)
    regions = plan.plan_regions(where, (height, width), image_size)
    size = (int(image_size[0]), int(image_size[1]))
    with lane.active(f"scoring the pixels of {count} people"), ExitStack() as held:
        if count == 0:
            yield DeviceScores(lane, regions, views, size, 0, 0)
            return
        parameters = plan.parameter_layout(count, num_classes).nbytes
        up = held.enter_context(Tensor(lane, "tail.parameters", (parameters,), np.uint8))
        plan.pack_parameters(where, regions, classes, up.host)
        up.send(parameters)
        layout = plan.result_layout(count, num_classes, regions.nbytes)
        down = held.enter_context(lane.pool.device("tail.results", layout.nbytes, lane.stream))
        workspace_bytes = plan.workspace_layout(count, num_classes).nbytes
        workspace = held.enter_context(lane.pool.device("tail.workspace", workspace_bytes, lane.stream))
        if not workspace.is_zeroed:
            driver = lane.gpu.driver
            driver.memset_d8_async(workspace.address, 0, workspace.capacity_bytes, lane.stream.driver_stream)
        mirrored = 0 if flipped_logits is None else flipped_logits.address
        addresses = (logits.address, mirrored, up.address, down.address + layout.labels, workspace.address)
        shape = (count, num_classes, height, width)
        workspace.is_zeroed = False  # until the second kernel is queued
        launches = (
            plan.score_launch(mode, logits.dtype, shape, regions.tiles, threshold, *addresses),
            plan.finish_launch(count, num_classes, workspace.address, down.address),
        )
        for launch in launches:
            lane.launch(launch)
        workspace.is_zeroed = True
        yield DeviceScores(lane, regions, views, size, down.address, up.address, launches)


def pixel_score(
    logits: ArrayLike,
    boxes: ArrayLike,
    image_size: tuple[int, int],
    threshold: float = PIXEL_SCORE_THRESHOLD,
    flipped_logits: ArrayLike | None = None,
    flip_pairs: Sequence[tuple[int, int]] = (),
    mode: str = "exact",
    gpu: int = 0,
) -> PixelScores:
    """Labels and pixel scores of N people from host arrays; calls of several threads take turns.

    Args:
        mode: "exact" or "fast", see `score_people`.
        gpu: index among the GPUs that CUDA_VISIBLE_DEVICES leaves.
        The others are those of `qanet.quality.pixel_score`; float16 logits stay float16 on the way up.
    Raises:
        QanetError: an argument that does not fit, no GPU, or CUDA failed.
    """
    _check_mode(mode)
    views = [_checked_view(logits, boxes, image_size, threshold, "logits")]
    if flipped_logits is not None:
        views.append(_checked_view(flipped_logits, boxes, image_size, threshold, "flipped_logits"))
        if views[1].shape != views[0].shape:
            raise QanetError("flipped_logits do not fit", expected=views[0].shape, got=views[1].shape)
        if views[1].dtype != views[0].dtype:
            views = [view.astype(np.float32, copy=False) for view in views]
    lane = shared_lane(gpu)
    with lane.active("scoring pixels"), ExitStack() as held:
        arrays = []
        for name, view in zip(("logits", "flipped_logits"), views):
            tensor = held.enter_context(Tensor(lane, f"tail.{name}", view.shape, view.dtype))
            tensor.upload(view)
            arrays.append(tensor.first(len(view)))
        mirrored = arrays[1] if len(arrays) > 1 else None
        with score_people(lane, arrays[0], boxes, image_size, threshold, mirrored, flip_pairs, mode) as scored:
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


def _check_mode(mode: str) -> None:
    if mode not in plan.MODES:
        raise QanetError("unknown mode of the pixel score", expected=f"one of {', '.join(plan.MODES)}", got=mode)
