"""What TensorRT tells of an engine's layers: their time while it runs, their precision and kind where it was built."""

from collections.abc import Callable
from typing import Any


def layer_profiler(library: Any, report: Callable[[str, float], None]) -> Any:
    """A profiler for execution contexts that hands on what it is told; the library keeps no reference to it.

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
    """What the inspector that `inspect` makes tells as JSON; None where the library or the engine has none."""
    try:
        told: str = inspect().get_engine_information(library.LayerInformationFormat.JSON)
    except (AttributeError, RuntimeError):
        return None
    return told
