"""A deserialised engine with all it holds on a GPU: one stream, a buffer a tensor, an execution context a profile.

A static bucket, a profile of one batch size, runs as a CUDA graph from its second batch on: its shapes and addresses
never change, so what TensorRT queues for it is recorded once and launched with one call.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.runtime.cuda.context import Gpu
from qanet.runtime.cuda.graph import Replay
from qanet.runtime.cuda.lane import Lane
from qanet.runtime.cuda.tensor import DeviceArray, Tensor
from qanet.runtime.engines.base import Outputs
from qanet.runtime.engines.tensorrt_choice import HOST_CODE, LibraryLog, library_log
from qanet.runtime.engines.tensorrt_layers import layer_information, layer_profiler

_INPUT_TYPES = {"crops": np.uint8, "box_scores": np.float32}


@dataclass
class _Profile:
    """An optimisation profile and the context that runs it: batches low..high, `batch` the one it is set to.

    `replay` runs a static bucket; None where the batch varies, since a graph is of one shape. `replays`: whether it
    may, which it may not under a profiler.
    """

    context: Any
    low: int
    high: int
    batch: int = 0
    replay: Replay | None = None
    replays: bool = True


class Session:
    """Opened whole or not at all, released once; threads take turns.

    Args:
        library: the module tensorrt or tensorrt_rtx.
        gpu: where to run.
        plan: the engine file's bytes.
        host_code: admit an engine that brings machine code of its own.
        row_shape: (H, W, 3) of a crop.
        wanted: outputs to bring back to the host; None for all. The others stay on the GPU.

    Attributes:
        lane: the stream and memory of the engine, for kernels before and after it.
        inputs, outputs: names of the inputs to feed and of the outputs that `run` returns.
        max_batch: the most rows of a run.

    Raises:
        QanetError: the library refuses the engine, the engine does not have these tensors, or memory runs out.
    """

    def __init__(
        self, library: Any, gpu: Gpu, plan: bytes, host_code: bool, row_shape: tuple[int, ...],
        wanted: tuple[str, ...] | None,
    ):  # fmt: skip
        self._trt = library
        self._log: LibraryLog = library_log(library)
        self._runtime: Any = None
        self._engine: Any = None
        self._profiles: list[_Profile] = []
        self._tensors: dict[str, Tensor] = {}
        self.lane = Lane(gpu, "the engine")
        with self.lane.active("loading the engine"):
            try:
                self._deserialize(plan, host_code)
                self.inputs, self.outputs = self._names(wanted)
                self._open_profiles(row_shape)
                self.max_batch = max(profile.high for profile in self._profiles)
                self._allocate()
            except BaseException:
                with suppress(gpu.driver.Error, QanetError):  # the first error is the one to tell
                    self._free()
                raise

    def run(self, feed: dict[str, NDArray], count: int) -> Outputs:
        """One batch of `count` rows, at most max_batch; blocks until the outputs are on the host.

        Raises:
            QanetError: released before, or a step failed; nothing of the batch is in flight any more.
        """
        with self.lane.active(f"running a batch of {count}"):
            self._execute(count, lambda batch: self._upload(feed, batch))
            for name in self.outputs:
                self._tensors[name].download(count)
            self.lane.stream.synchronize()
            return {name: self._tensors[name].rows(count) for name in self.outputs}

    @contextmanager
    def run_on_device(
        self, feed: dict[str, NDArray], count: int, write_crops: Callable[[Lane, DeviceArray], None]
    ) -> Iterator[dict[str, DeviceArray]]:
        """One batch whose crops come from a kernel and whose outputs stay on the GPU, for the block and no longer.

        Args:
            feed: the other inputs, by name.
            count: rows, at most max_batch.
            write_crops: queues on the lane what writes the (count, H, W, 3) uint8 crops.
        Yields:
            Every output by name, `count` rows each, in the engine's own type; read them on the lane's stream.
        Raises:
            QanetError: as `run`.
        """
        with self.lane.active(f"running a batch of {count}"):

            def fill(batch: int) -> None:
                write_crops(self.lane, self._tensors["crops"].first(count))
                self._tensors["crops"].clear(count, batch)
                self._upload(feed, batch)

            self._execute(count, fill)
            yield {name: tensor.first(count) for name, tensor in self._tensors.items() if name not in self.inputs}
            self.lane.stream.synchronize()

    @contextmanager
    def profiled(self, report: Callable[[str, float], None]) -> Iterator[str | None]:
        """For the block, every run reports its layers; recorded graphs, which report none, are given back before.

        Args:
            report: called with a layer's name and its milliseconds, once a layer and run.
        Yields:
            What the engine's inspector tells of the layers, as JSON; None where it tells nothing.
        Raises:
            QanetError: as `run`.
        """
        with self.lane.active("profiling the engine"):
            profiler = layer_profiler(self._trt, report)  # the library keeps no reference
            self._set_profiler(profiler)
            try:
                yield layer_information(self._trt, self._engine.create_engine_inspector)
            finally:
                self._set_profiler(None)

    def _set_profiler(self, profiler: Any) -> None:
        """Each context's profiler; a static bucket is recorded anew after it, since a graph keeps what it recorded."""
        for profile in self._profiles:
            if profile.replay is not None:
                profile.replay.close()
            profile.replays = profiler is None
            profile.context.profiler = profiler

    def _upload(self, feed: dict[str, NDArray], batch: int) -> None:
        for name, values in feed.items():
            self._tensors[name].upload(values, batch)

    def _execute(self, count: int, fill: Callable[[int], None]) -> None:
        """Queue the filling of the inputs and the engine, for the smallest profile that takes `count` rows."""
        fitting = [profile for profile in self._profiles if count <= profile.high]
        profile = min(fitting, key=lambda profile: (profile.high, -profile.low))
        batch = max(count, profile.low)
        self._set_batch(profile, batch)
        fill(batch)
        if profile.replay is None or not profile.replays:
            self._enqueue(profile)
        else:
            profile.replay.run()

    def _enqueue(self, profile: _Profile) -> None:
        mark = self._log.mark()
        done = profile.context.execute_async_v3(self.lane.stream.handle)
        self._require(done, mark, f"the engine cannot be executed on {' and '.join(self.inputs)} of {profile.batch}")

    @property
    def graph_batches(self) -> tuple[int, ...]:
        """Batch sizes that run as a CUDA graph from here on, in ascending order."""
        captured = [p.high for p in self._profiles if p.replay is not None and p.replay.is_captured]
        return tuple(sorted(captured))

    def release(self) -> None:
        """Wait for the stream, then give everything back."""
        with self.lane.turn, self.lane.gpu.active("closing the engine"):
            self._free()

    def _free(self) -> None:
        with ExitStack() as steps:  # last to first, each of them whatever another raises
            steps.callback(self.lane.close)
            steps.callback(self._tensors.clear)
            steps.callback(self._drop_library_objects)
            for profile in self._profiles:
                if profile.replay is not None:
                    steps.callback(profile.replay.close)
            steps.callback(self.lane.stream.synchronize)

    def _drop_library_objects(self) -> None:
        """TensorRT destroys an object with its last reference: children before parents, in the context they live in.

        So none of them is ever in a local variable, which the traceback of an error would keep alive past this.
        """
        for profile in self._profiles:
            profile.replay = profile.context = None
        self._profiles.clear()
        self._engine = None
        self._runtime = None

    def _deserialize(self, plan: bytes, host_code: bool) -> None:
        mark = self._log.mark()
        try:
            self._runtime = self._trt.Runtime(self._log.logger)
        except (TypeError, RuntimeError) as error:  # the binding's words for a null pointer
            got = self._log.since(mark)
            raise QanetError("TensorRT cannot start", got=got, next_command="qanet doctor") from error
        if host_code:
            setattr(self._runtime, HOST_CODE, True)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        self._require(self._engine is not None, mark, f"{self._trt.__name__} refuses the engine file")

    def _names(self, wanted: tuple[str, ...] | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the inputs to feed and of the outputs to return."""
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        inputs = tuple(n for n in names if self._engine.get_tensor_mode(n) == self._trt.TensorIOMode.INPUT)
        for name in inputs:
            expected, got = _INPUT_TYPES.get(name), self._type(name)
            if got is not expected:
                raise QanetError(f"the engine has an unknown input {name} of {got.__name__}",
                                 expected="crops of uint8, box_scores of float32", got=", ".join(inputs))  # fmt: skip
        if "crops" not in inputs:
            raise QanetError("the engine has no input crops", expected="crops", got=", ".join(inputs) or "no inputs")
        outputs = tuple(n for n in names if n not in inputs)
        missing = [name for name in wanted or () if name not in outputs]
        if missing:
            raise QanetError(f"the engine has no output {missing[0]}", expected=", ".join(wanted or ()),
                             got=", ".join(outputs), next_command="qanet build --tail graph")  # fmt: skip
        return inputs, outputs if wanted is None else tuple(wanted)

    def _type(self, name: str) -> Any:
        kind = self._engine.get_tensor_dtype(name)
        try:
            return self._trt.nptype(kind)
        except TypeError as error:
            raise QanetError(f"NumPy has no type for the engine's {name}", got=kind) from error

    def _open_profiles(self, row_shape: tuple[int, ...]) -> None:
        # A context of the default strategy holds scratch memory for the largest profile, whichever it runs.
        strategy = self._trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        for index in range(self._engine.num_optimization_profiles):
            low, _, high = (tuple(shape) for shape in self._engine.get_tensor_profile_shape("crops", index))
            if high[1:] != row_shape:
                raise QanetError("the engine takes crops of another size", expected=row_shape, got=high[1:])
            mark = self._log.mark()
            profile = _Profile(self._engine.create_execution_context(strategy), low[0], high[0])
            self._profiles.append(profile)
            self._require(profile.context is not None, mark, f"no execution context for batches up to {high[0]}")
            chosen = profile.context.set_optimization_profile_async(index, self.lane.stream.handle)
            self._require(chosen, mark, f"optimisation profile {index}, for batches up to {high[0]}, cannot be chosen")
        self.lane.stream.synchronize()

    def _set_batch(self, profile: _Profile, batch: int) -> None:
        if profile.batch == batch:
            return
        profile.batch = 0  # unknown until every input took it
        for name in self.inputs:
            mark = self._log.mark()
            shape = (batch, *tuple(self._engine.get_tensor_shape(name))[1:])
            taken = profile.context.set_input_shape(name, shape)
            self._require(taken, mark, f"the engine's input {name} does not take the shape {shape}")
        profile.batch = batch

    def _allocate(self) -> None:
        """Memory for each tensor, for the largest profile; every context gets the same addresses, once."""
        for profile in self._profiles:
            self._set_batch(profile, profile.high)
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            pinned = name in self.inputs or name in self.outputs
            shape = (self.max_batch, *self._row_shape(name))
            tensor = self._tensors[name] = Tensor(self.lane, f"engine.{name}", shape, self._type(name), has_host=pinned)
            for profile in self._profiles:
                mark = self._log.mark()
                bound = profile.context.set_tensor_address(name, tensor.address)
                self._require(bound, mark, f"TensorRT does not take the address of {name}")
        for profile in self._profiles:
            if profile.low == profile.high and self._is_capturable(profile):
                profile.replay = Replay(self.lane, partial(self._enqueue, profile))

    def _is_capturable(self, profile: _Profile) -> bool:
        """TensorRT-RTX tells, since it may compile kernels while it runs; TensorRT always is."""
        asked = getattr(profile.context, "is_stream_capturable", None)
        return asked is None or bool(asked(self.lane.stream.handle))

    def _row_shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape for one crop, which is the same in every profile."""
        shapes = [(profile.high, tuple(profile.context.get_tensor_shape(name))) for profile in self._profiles]
        rows = {shape[1:] for _, shape in shapes}
        if len(rows) != 1 or any(shape[:1] != (batch,) or min(shape) < 1 for batch, shape in shapes):
            got = ", ".join(f"{shape} for {batch} crops" for batch, shape in shapes)
            raise QanetError(f"the engine's {name} has not one row a crop", expected="(N, ...)", got=got)
        return rows.pop()

    def _require(self, success: bool, mark: int, fact: str) -> None:
        if not success:
            raise QanetError(fact, expected="success", got=self._log.since(mark))
