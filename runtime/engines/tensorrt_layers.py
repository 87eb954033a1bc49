"""What TensorRT tells of an engine's layers: their time while it runs, their precision and kind where it was built."""

import json
from collections.abc import Callable, Sequence
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


def merge_information(told: Sequence[str | None]) -> str | None:
    """What several plans of one network tell, as one inspector would; None where none tells anything.

    Layers are called alike in all plans, since a name comes from the graph: each is told as the first that has it does.
    """
    found = [text for text in told if text is not None]
    if len(found) <= 1:
        return found[0] if found else None
    layers: dict[str, Any] = {}
    for text in found:
        for layer in json.loads(text, strict=False).get("Layers", []):  # not strict: control characters stand in it
            layers.setdefault(str(layer.get("Name")) if isinstance(layer, dict) else str(layer), layer)
    return json.dumps({"Layers": list(layers.values())})
