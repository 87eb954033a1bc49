"""A plan with its memory, one buffer per tensor for the largest batch, and its runs.

A static bucket, a profile of one batch size, runs as a CUDA graph from its second batch on: its shapes and addresses
never change, so what TensorRT queues for it is recorded once and launched with one call.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.runtime.backends.base import Outputs
from qanet.runtime.backends.tensorrt.plan import Plan, Profile
from qanet.runtime.cuda.gpu_context import DeviceArray, GpuContext, Tensor
from qanet.runtime.cuda.graph import Replay


class Session:
    """Opened whole or not at all; call every method inside `gpu.active`.

    Args:
        library: the module tensorrt or tensorrt_rtx.
        gpu: the stream and the memory; those of other sessions too, where an engine has several plans.
        data: the engine file's bytes.
        host_code: admit an engine that brings machine code of its own.
        row_shape: (H, W, 3) of a crop.
        wanted: outputs to bring back to the host; None for all. The others stay on the GPU.
        name: of the engine, in errors and of its buffers in the pool.

    Attributes:
        inputs, outputs: names of the inputs it takes and of the outputs that `run` returns.
        batches: (least, most) rows of each profile.

    Raises:
        QanetError: the library refuses the engine, the engine does not have these tensors, or memory runs out.
    """

    def __init__(
        self,
        library: Any,
        gpu: GpuContext,
        data: bytes,
        host_code: bool,
        row_shape: tuple[int, ...],
        wanted: tuple[str, ...] | None,
        name: str = "the engine",
    ):
        self.gpu, self._name = gpu, name
        self._tensors: dict[str, Tensor] = {}
        self._replays: dict[Profile, Replay] = {}
        self._is_profiled = False
        with gpu.active(f"loading {name}"):
            self._plan = Plan(library, gpu, data, host_code, row_shape)
            try:
                self.inputs, self.outputs = self._plan.inputs, self._returned(wanted)
                self.batches = tuple((profile.low, profile.high) for profile in self._plan.profiles)
                self._allocate()
            except BaseException:
                with suppress(gpu.device.driver.Error, QanetError):  # the first error is reported
                    self.free()
                raise

    def run(self, feed: dict[str, NDArray], count: int) -> Outputs:
        """One batch of `count` rows, at most those of the largest profile; blocks until the outputs are on the host.

        Args:
            feed: arrays of `count` rows by name, those of all inputs among them.
        Raises:
            QanetError: a step failed; nothing of the batch is in flight any more.
        """
        self._execute(count, lambda batch: self._upload(feed, batch))
        for name in self.outputs:
            self._tensors[name].download(count)
        self.gpu.stream.synchronize()
        return {name: self._tensors[name].rows(count) for name in self.outputs}

    @contextmanager
    def run_on_device(
        self, feed: dict[str, NDArray], count: int, write_crops: Callable[[GpuContext, DeviceArray], None]
    ) -> Iterator[dict[str, DeviceArray]]:
        """One batch whose crops come from a kernel and whose outputs stay on the GPU, for the block and no longer.

        Args:
            feed: the other inputs, by name.
            count: rows, at most those of the largest profile.
            write_crops: queues on the stream what writes the (count, H, W, 3) uint8 crops.
        Yields:
            Every output by name, `count` rows each, in the engine's own type; read them on the same stream.
        Raises:
            QanetError: as `run`.
        """

        def fill(batch: int) -> None:
            write_crops(self.gpu, self._tensors["crops"].first(count))
            self._tensors["crops"].clear(count, batch)
            self._upload(feed, batch)

        self._execute(count, fill)
        yield {name: tensor.first(count) for name, tensor in self._tensors.items() if name not in self.inputs}
        self.gpu.stream.synchronize()

    def information(self) -> str | None:
        """The inspector's report on the engine's layers, as JSON; None without one."""
        return self._plan.information()

    def set_profiler(self, profiler: Any) -> None:
        """Let every run report its layers, or with None stop; recorded graphs, which report no layers, are destroyed.

        A static bucket is recorded again afterwards, since a graph keeps the profiler that it was recorded under.
        """
        for replay in self._replays.values():
            replay.close()
        self._is_profiled = profiler is not None
        self._plan.set_profiler(profiler)

    @property
    def graph_batches(self) -> tuple[int, ...]:
        """Batch sizes that run as a CUDA graph from here on, in ascending order."""
        return tuple(sorted(profile.high for profile, replay in self._replays.items() if replay.is_captured))

    def free(self) -> None:
        """Wait for the stream, then give everything back: library objects for good, buffers to the pool."""
        with ExitStack() as steps:  # last to first, each of them whatever another raises
            steps.callback(self._tensors.clear)
            for tensor in self._tensors.values():
                steps.callback(tensor.release)
            steps.callback(self._plan.drop)
            steps.callback(self._replays.clear)
            for replay in self._replays.values():
                steps.callback(replay.close)
            steps.callback(self.gpu.stream.synchronize)

    def _upload(self, feed: dict[str, NDArray], batch: int) -> None:
        for name in self.inputs:
            if name in feed:
                self._tensors[name].upload(feed[name], batch)

    def _execute(self, count: int, fill: Callable[[int], None]) -> None:
        """Queue the filling of the inputs and the engine, for the smallest profile that takes `count` rows."""
        profile = self._plan.profile_for(count)
        batch = max(count, profile.low)
        self._plan.set_batch(profile, batch)
        fill(batch)
        replay = None if self._is_profiled else self._replays.get(profile)
        if replay is None:
            self._plan.enqueue(profile)
        else:
            replay.run()

    def _returned(self, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
        """Names of the outputs to return."""
        if wanted is None:
            return self._plan.outputs
        missing = [name for name in wanted if name not in self._plan.outputs]
        if missing:
            raise QanetError(
                f"{self._name} has no output {missing[0]}",
                expected=", ".join(wanted),
                got=", ".join(self._plan.outputs),
                next_command="qanet build --tail graph",
            )
        return tuple(wanted)

    def _allocate(self) -> None:
        """Memory for each tensor, for the largest profile; every context gets the same addresses, once."""
        rows = max(high for _, high in self.batches)
        for name in self._plan.names:
            pinned = name in self.inputs or name in self.outputs
            shape, kind = (rows, *self._plan.row_shape(name)), self._plan.type_of(name)
            tensor = self._tensors[name] = Tensor(self.gpu, f"{self._name}: {name}", shape, kind, has_host=pinned)
            self._plan.bind(name, tensor.address)
        for profile in self._plan.profiles:
            if profile.low == profile.high and self._plan.is_capturable(profile):
                self._replays[profile] = Replay(self.gpu, partial(self._plan.enqueue, profile))
