"""A kernel launch as plain numbers, and the modules that the launches of one stream come from."""

from dataclasses import dataclass
from typing import Any

from qanet.errors import QanetError
from qanet.runtime.cuda.context import Gpu
from qanet.runtime.cuda.stream import Stream

_GRID_LIMITS = (2**31 - 1, 65_535, 65_535)  # blocks along x, y, z on every GPU since Kepler


@dataclass(frozen=True)
class Launch:
    """One launch; computed without a GPU, so that a test can look at it.

    Attributes:
        module: file of runtime/cuda/kernels, without its suffix.
        function: name in it.
        types: a character an argument, as in `struct`: P address, q int64, i int32, f float32.
        arguments: as many numbers, in the kernel's order.
        grid, block: blocks and threads along x, y, z.
        shared_bytes: dynamic shared memory of a block.

    Raises:
        QanetError: more blocks than a grid may have: too many people for one launch.
    """

    module: str
    function: str
    types: str
    arguments: tuple[int | float, ...]
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int = 0

    def __post_init__(self) -> None:
        if any(not 1 <= blocks <= limit for blocks, limit in zip(self.grid, _GRID_LIMITS)):
            raise QanetError(
                f"{self.function} cannot be launched at once",
                expected=f"a grid up to {_GRID_LIMITS}",
                got=self.grid,
                next_command="give fewer people at a time",
            )


class Kernels:
    """The kernels' functions on one GPU, loaded on first use. Every method wants the context current."""

    def __init__(self, gpu: Gpu):
        self._gpu = gpu
        self._modules: dict[str, Any] = {}
        self._functions: dict[str, Any] = {}

    def launch(self, launch: Launch, stream: Stream) -> None:
        """Queue a launch.

        Raises:
            QanetError: there is no image of the kernel for this GPU, or the driver refuses it, in the driver's words.
        """
        function = self._function(launch)
        with self._gpu.active(f"launching {launch.function} on a grid of {launch.grid}"):
            function.prepared_async_call(
                launch.grid, launch.block, stream.driver_stream, *launch.arguments, shared_size=launch.shared_bytes
            )

    def load(self, module: str) -> Any:
        """PyCUDA's module of a kernel file, compiled and loaded on the first call.

        Raises:
            QanetError: there is no image of the kernel for this GPU, or the driver refuses it.
        """
        if module not in self._modules:
            from qanet.runtime.cuda.build import kernel_image  # here: whoever loads no kernel needs no compiler

            image = kernel_image(module, self._gpu.target)
            with self._gpu.active(f"loading the kernels of {module}"):
                self._modules[module] = self._gpu.driver.module_from_buffer(image)
        return self._modules[module]

    def _function(self, launch: Launch) -> Any:
        function = self._functions.get(launch.function)
        if function is None:
            module = self.load(launch.module)
            with self._gpu.active(f"looking up the kernel {launch.function}"):
                function = module.get_function(launch.function)
                function.prepare(launch.types)
            self._functions[launch.function] = function
        return function

    def clear(self) -> None:
        """Unload everything; nothing of it may be running."""
        self._functions.clear()
        self._modules.clear()
