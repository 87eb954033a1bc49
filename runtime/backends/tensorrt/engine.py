"""TensorRT and TensorRT-RTX on an NVIDIA GPU: the engine of a bundle that fits this machine, and nothing else."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
from numpy.typing import NDArray

from qanet.bundle import Bundle
from qanet.errors import QanetError
from qanet.files import sha256_bytes
from qanet.runtime.backends.base import Origin, Outputs
from qanet.runtime.backends.tensorrt.buckets import Buckets, PlanFile
from qanet.runtime.backends.tensorrt.choice import HOST_CODE, batches_of, choose_plans, needs_host_code
from qanet.runtime.cuda.device import open_device
from qanet.runtime.cuda.gpu_context import Closing, DeviceArray, GpuContext


class TensorRtEngine(Closing):
    """A loaded engine; calls from several threads take turns.

    Close it, or use it in a `with`, to give GPU memory back at a moment of your choice; what is left open is closed
    when it is collected or when the process ends.

    Attributes:
        runtime: "tensorrt" or "tensorrt-rtx".
        precision: as the manifest says.
        outputs: names of the arrays that `run` returns.
        max_batch: the most crops the engine takes at once; `run` splits what is more.
        test_plan: called with the batch sizes of a plan that was just opened, before its first result; raises where
            its outputs are wrong.
    """

    def __init__(
        self, buckets: Buckets, runtime: str, precision: str, crop_hw: tuple[int, int], origin: Origin | None = None
    ):
        self.runtime, self.precision, self.outputs = runtime, precision, buckets.outputs
        self.origin = origin
        self.max_batch = buckets.max_batch
        self._buckets, self._crop_shape = buckets, (*crop_hw, 3)
        self.test_plan: Callable[[tuple[int, ...]], None] | None = None
        self._tested = set(self.batch_sizes)  # the caller tests the plans that are open from the start
        self._finalizer = weakref.finalize(self, buckets.release)  # runs once, at exit too

    def run(self, crops: NDArray[np.uint8], box_scores: NDArray[np.float32]) -> Outputs:
        """One batch through the network.

        Args:
            crops: (N, H, W, 3) uint8 BGR, N of 1 or more.
            box_scores: (N,) float32; unused by an engine cut to logits and IoU.
        Returns:
            The engine's outputs by name, N rows each, float16 as float32, owned by the caller.
        Raises:
            QanetError: arrays of another shape or type, a closed engine, or a failure of TensorRT or CUDA.
        """
        count = len(crops)
        feed: dict[str, NDArray] = {"crops": crops, "box_scores": np.asarray(box_scores, np.float32)}
        if crops.dtype != np.uint8 or crops.shape[1:] != self._crop_shape or count < 1:
            expected = f"(N, {', '.join(map(str, self._crop_shape))}) uint8"
            raise QanetError("crops do not fit the engine", expected=expected, got=f"{crops.shape} {crops.dtype}")
        if feed["box_scores"].shape != (count,):
            raise QanetError("box_scores do not fit the crops", expected=(count,), got=feed["box_scores"].shape)
        parts = []
        for start in range(0, count, self.max_batch):
            part = {name: values[start : start + self.max_batch] for name, values in feed.items()}
            self._make_ready(len(part["crops"]))
            parts.append(self._buckets.run(part, len(part["crops"])))
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    @property
    def graph_batches(self) -> tuple[int, ...]:
        """Batch sizes of static buckets that run as CUDA graphs by now: those that ran twice, where that works."""
        return self._buckets.graph_batches

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The largest batch of each profile of the plans that are open by now: sizes to test the engine with."""
        return self._buckets.profile_batches

    @property
    def open_batches(self) -> tuple[int, ...]:
        """The largest batch of each plan that is open by now: one, unless the engine was built as a plan a bucket."""
        return self._buckets.open_batches

    @property
    def gpu(self) -> GpuContext:
        """The stream and memory of the engine, which kernels before and after it share."""
        return self._buckets.gpu

    def prepare(self, count: int) -> None:
        """Open what a batch of `count` crops runs on, so that the first such batch does not wait for it.

        Raises:
            QanetError: as `run_on_device`.
        """
        self._check_count(count)
        self._make_ready(count)

    @contextmanager
    def run_on_device(
        self, count: int, box_scores: NDArray[np.float32], write_crops: Callable[[GpuContext, DeviceArray], None]
    ) -> Iterator[dict[str, DeviceArray]]:
        """One batch whose crops come from a kernel and whose outputs stay on the GPU: nothing goes to the host.

        ```python
        with engine.run_on_device(len(boxes), scores, partial(queue_crops, image=frame, boxes=boxes)) as outputs:
            scored = score_people(engine.gpu, outputs["logits"], boxes, frame.shape[:2])
        ```

        Args:
            count: crops, 1 to max_batch.
            box_scores: (count,) float32; unused by an engine cut to logits and IoU.
            write_crops: given the GPU context and the (count, H, W, 3) uint8 crops on the GPU, queues what writes them.
        Yields:
            The engine's outputs by name, in its own type; valid inside the block, which is this thread's turn.
        Raises:
            QanetError: as `run`.
        """
        self._check_count(count)
        scores = np.asarray(box_scores, np.float32)
        if scores.shape != (count,):
            raise QanetError("box_scores do not fit the crops", expected=(count,), got=scores.shape)
        self._make_ready(count)
        with self._buckets.run_on_device({"box_scores": scores}, count, write_crops) as outputs:
            yield outputs

    def _make_ready(self, count: int) -> None:
        """Open the plan of a batch, and test it if it is new."""
        self._buckets.prepare(count)
        new = tuple(sorted(set(self.batch_sizes) - self._tested))
        if new:
            self._tested |= set(new)  # the test runs the engine, which calls this method again
            if self.test_plan is not None:
                self.test_plan(new)

    def _check_count(self, count: int) -> None:
        if not 1 <= count <= self.max_batch:
            raise QanetError("the batch does not fit the engine", expected=f"1 to {self.max_batch} crops", got=count)

    @contextmanager
    def profiled(self, report: Callable[[str, float], None]) -> Iterator[str | None]:
        """For the block, which is this thread's turn, every run reports its layers and no CUDA graph runs.

        Args:
            report: called with a layer's name and its milliseconds, once a layer and run.
        Yields:
            The inspector's report on the layers of the open plans, as JSON; None without one.
        Raises:
            QanetError: as `run`.
        """
        with self._buckets.profiled(report) as information:
            yield information

    def close(self) -> None:
        """Wait for what runs and free everything; a second call does nothing."""
        self._finalizer()


def engine_from_bundle(
    bundle: Bundle,
    precision: str,
    outputs: tuple[str, ...] | None = None,
    *,
    index: int = 0,
    allow_host_code: bool = False,
) -> TensorRtEngine:
    """Load the bundle's engine for this GPU and the installed TensorRT, all its plans where it has one a bucket.

    Args:
        bundle: an opened bundle.
        precision: "fp32", "fp16" or "int8".
        outputs: outputs `run` returns; None for all. The engine's other outputs stay on the GPU.
        index: of the GPU among those that CUDA_VISIBLE_DEVICES leaves.
        allow_host_code: load a version-compatible engine, which runs machine code out of its file: for a bundle from
            someone you trust.
    Raises:
        QanetError: no GPU, no TensorRT, no engine that fits (nothing was deserialised then), a file that was changed,
            or an engine that TensorRT refuses.
    """
    device = open_device(index)
    library, entries = choose_plans(bundle, precision, outputs, device.target)
    host_code = needs_host_code(entries[0])
    if host_code and not allow_host_code:
        raise QanetError(
            f"{entries[0]['file']} runs machine code of its own",
            expected=f"no {HOST_CODE}",
            got=HOST_CODE,
            next_command="engine_from_bundle(..., allow_host_code=True) if you trust the bundle, else qanet build",
        )
    plans = [PlanFile(e["file"], batches_of(e), partial(_read_plan, bundle, e["file"], len(entries))) for e in entries]
    buckets = Buckets(library, device, plans, host_code, (*bundle.input_hw, 3), outputs)
    sha256 = "+".join(bundle.manifest["files"][entry["file"]]["sha256"] for entry in entries)
    origin = Origin(precision, sha256, library.__version__, device.identity)
    return TensorRtEngine(buckets, entries[0]["runtime"], precision, bundle.input_hw, origin)


def _read_plan(bundle: Bundle, file: str, plans: int) -> bytes:
    """A plan's bytes, its hash checked; one of several only as it was built with the others."""
    data = bundle.read(file)
    if plans > 1 and sha256_bytes(data) != bundle.manifest["files"][file]["sha256"]:
        # Another process saved the bundle since; plans opened before are of other weights or scales.
        raise QanetError(
            f"{bundle.name} was built again since it was opened",
            expected=f"{file} as it was then",
            got="another",
            next_command="load it again",
        )
    return data
