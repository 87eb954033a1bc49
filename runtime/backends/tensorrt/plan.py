"""A deserialised plan with an execution context per optimisation profile, and reports on its layers.

Every call on the library's objects is in this module, and each is checked.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qanet.errors import QanetError
from qanet.runtime.backends.tensorrt.choice import HOST_CODE, LibraryLog, library_log
from qanet.runtime.cuda.gpu_context import GpuContext

_INPUT_TYPES = {"crops": np.uint8, "box_scores": np.float32}


@dataclass(eq=False)
class Profile:
    """An optimisation profile and the context that runs it: batches low..high, `batch` the one it is set to."""

    context: Any
    low: int
    high: int
    batch: int = 0


class Plan:
    """Opened whole or not at all; call every method inside `gpu.active`.

    Args:
        library: the module tensorrt or tensorrt_rtx.
        gpu: the context whose stream is used.
        data: the engine file's bytes.
        host_code: admit an engine that brings machine code of its own.
        row_shape: (H, W, 3) of a crop.

    Attributes:
        inputs, outputs: names of the tensors.
        profiles: one for each optimisation profile, set to its largest batch.

    Raises:
        QanetError: the library refuses the engine, or it does not take such crops.
    """

    def __init__(self, library: Any, gpu: GpuContext, data: bytes, host_code: bool, row_shape: tuple[int, ...]):
        self._trt, self._gpu = library, gpu
        self._log: LibraryLog = library_log(library)
        self._runtime: Any = None
        self._engine: Any = None
        self.profiles: list[Profile] = []
        try:
            self._deserialize(data, host_code)
            self.inputs, self.outputs = self._names()
            self._open_profiles(row_shape)
        except BaseException:
            gpu.settle()
            self.drop()
            raise

    @property
    def names(self) -> tuple[str, ...]:
        """All tensors."""
        return (*self.inputs, *self.outputs)

    def profile_for(self, count: int) -> Profile:
        """The smallest profile that takes `count` rows; the narrowest of several."""
        fitting = [profile for profile in self.profiles if count <= profile.high]
        return min(fitting, key=lambda profile: (profile.high, -profile.low))

    def set_batch(self, profile: Profile, batch: int) -> None:
        """Set the batch of a context's next runs.

        Raises:
            QanetError: an input does not take it.
        """
        if profile.batch == batch:
            return
        profile.batch = 0  # unknown until every input took it
        for name in self.inputs:
            mark = self._log.mark()
            shape = (batch, *tuple(self._engine.get_tensor_shape(name))[1:])
            taken = profile.context.set_input_shape(name, shape)
            self._require(taken, mark, f"the engine's input {name} does not take the shape {shape}")
        profile.batch = batch

    def bind(self, name: str, address: int) -> None:
        """Set a tensor's address in every context.

        Raises:
            QanetError: TensorRT does not take the address.
        """
        for profile in self.profiles:
            mark = self._log.mark()
            bound = profile.context.set_tensor_address(name, address)
            self._require(bound, mark, f"TensorRT does not take the address of {name}")

    def enqueue(self, profile: Profile) -> None:
        """Queue the network on the stream, for the batch that the profile is set to.

        Raises:
            QanetError: TensorRT refuses.
        """
        mark = self._log.mark()
        done = profile.context.execute_async_v3(self._gpu.stream.handle)
        self._require(done, mark, f"the engine cannot be executed on {' and '.join(self.inputs)} of {profile.batch}")

    def type_of(self, name: str) -> Any:
        """A tensor's NumPy type; QanetError where NumPy has none."""
        kind = self._engine.get_tensor_dtype(name)
        try:
            return self._trt.nptype(kind)
        except TypeError as error:
            raise QanetError(f"NumPy has no type for the engine's {name}", got=kind) from error

    def row_shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape for one crop, which is the same in every profile; QanetError where it is not."""
        shapes = [(profile.batch, tuple(profile.context.get_tensor_shape(name))) for profile in self.profiles]
        rows = {shape[1:] for _, shape in shapes}
        if len(rows) != 1 or any(shape[:1] != (batch,) or min(shape) < 1 for batch, shape in shapes):
            got = ", ".join(f"{shape} for {batch} crops" for batch, shape in shapes)
            raise QanetError(f"the engine's {name} has not one row a crop", expected="(N, ...)", got=got)
        return rows.pop()

    def is_capturable(self, profile: Profile) -> bool:
        """Always for TensorRT; TensorRT-RTX reports it, since it may compile kernels while it runs."""
        query = getattr(profile.context, "is_stream_capturable", None)
        return query is None or bool(query(self._gpu.stream.handle))

    def information(self) -> str | None:
        """The inspector's report on the engine's layers, as JSON; None without one."""
        return layer_information(self._trt, self._engine.create_engine_inspector)

    def set_profiler(self, profiler: Any) -> None:
        """Each context's profiler, None for none; the library keeps no reference to it."""
        for profile in self.profiles:
            profile.context.profiler = profiler

    def drop(self) -> None:
        """Give the library's objects back, when nothing of them runs any more; a second call does nothing.

        TensorRT destroys an object with its last reference: children before parents, in the context they live in. So
        none of them is ever in a local variable, which the traceback of an error would keep alive past this.
        """
        for profile in self.profiles:
            profile.context = None
        self.profiles.clear()
        self._engine = None
        self._runtime = None

    def _deserialize(self, data: bytes, host_code: bool) -> None:
        mark = self._log.mark()
        try:
            self._runtime = self._trt.Runtime(self._log.logger)
        except (TypeError, RuntimeError) as error:  # the binding's words for a null pointer
            got = self._log.since(mark)
            raise QanetError("TensorRT cannot start", got=got, next_command="qanet doctor") from error
        if host_code:
            setattr(self._runtime, HOST_CODE, True)
        self._engine = self._runtime.deserialize_cuda_engine(data)
        self._require(self._engine is not None, mark, f"{self._trt.__name__} refuses the engine file")

    def _names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the inputs and of the outputs."""
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        inputs = tuple(n for n in names if self._engine.get_tensor_mode(n) == self._trt.TensorIOMode.INPUT)
        for name in inputs:
            expected, got = _INPUT_TYPES.get(name), self.type_of(name)
            if got is not expected:
                raise QanetError(
                    f"the engine has an unknown input {name} of {got.__name__}",
                    expected="crops of uint8, box_scores of float32",
                    got=", ".join(inputs),
                )
        if "crops" not in inputs:
            raise QanetError("the engine has no input crops", expected="crops", got=", ".join(inputs) or "no inputs")
        return inputs, tuple(n for n in names if n not in inputs)

    def _open_profiles(self, row_shape: tuple[int, ...]) -> None:
        # A context of the default strategy holds scratch memory for the largest profile, whichever it runs.
        strategy = self._trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        for index in range(self._engine.num_optimization_profiles):
            low, _, high = (tuple(shape) for shape in self._engine.get_tensor_profile_shape("crops", index))
            if high[1:] != row_shape:
                raise QanetError("the engine takes crops of another size", expected=row_shape, got=high[1:])
            mark = self._log.mark()
            profile = Profile(self._engine.create_execution_context(strategy), low[0], high[0])
            self.profiles.append(profile)
            self._require(profile.context is not None, mark, f"no execution context for batches up to {high[0]}")
            chosen = profile.context.set_optimization_profile_async(index, self._gpu.stream.handle)
            self._require(chosen, mark, f"optimisation profile {index}, for batches up to {high[0]}, cannot be chosen")
        self._gpu.stream.synchronize()
        for profile in self.profiles:
            self.set_batch(profile, profile.high)

    def _require(self, success: bool, mark: int, fact: str) -> None:
        if not success:
            raise QanetError(fact, expected="success", got=self._log.since(mark))


def layer_profiler(library: Any, report: Callable[[str, float], None]) -> Any:
    """A profiler for execution contexts; the caller keeps it alive, since the library holds no reference.

    Args:
        library: the module tensorrt or tensorrt_rtx.
        report: called with a layer's name and its milliseconds.
    """

    class Profiler(library.IProfiler):
        def __init__(self) -> None:
            library.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            report(layer_name, ms)

    return Profiler()


def layer_information(library: Any, inspect: Callable[[], Any]) -> str | None:
    """The report of the inspector that `inspect` makes, as JSON; None where the library or the engine has none."""
    try:
        report: str = inspect().get_engine_information(library.LayerInformationFormat.JSON)
    except (AttributeError, RuntimeError):
        return None
    return report


def merge_information(reports: Sequence[str | None]) -> str | None:
    """The reports of several plans of one network as one; None where no plan has one.

    A layer has the same name in all plans, since the name comes from the graph; the first plan's entry is kept.
    """
    found = [text for text in reports if text is not None]
    if len(found) <= 1:
        return found[0] if found else None
    layers: dict[str, Any] = {}
    for text in found:
        for layer in json.loads(text, strict=False).get("Layers", []):  # not strict: it has control characters
            layers.setdefault(str(layer.get("Name")) if isinstance(layer, dict) else str(layer), layer)
    return json.dumps({"Layers": list(layers.values())})
