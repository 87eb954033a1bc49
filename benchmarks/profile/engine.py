"""The profile of a variant by the runtime that runs it, or why there is none."""

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.profile.openvino import profile_openvino
from qanet.benchmarks.profile.tensorrt import profile_tensorrt
from qanet.benchmarks.variants import Variant
from qanet.runtime.engines.base import Engine
from qanet.runtime.engines.tensorrt_choice import MODULES


def profile_engine(
    variant: Variant, engine: Engine, crops: NDArray[np.uint8], box_scores: NDArray[np.float32],
    threads: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """See `describe_profile`; {"source": None, "reason": ...} for a runtime without a profiler."""
    if engine.runtime == "openvino":
        return profile_openvino(variant, crops, box_scores, threads=threads)
    if engine.runtime in MODULES:
        library = importlib.import_module(MODULES[engine.runtime])
        contexts, information = tensorrt_parts(engine, library)
        return profile_tensorrt(library, contexts, lambda: engine.run(crops, box_scores), information)
    return {"source": None, "reason": f"{engine.runtime} has no profiler here"}


def tensorrt_parts(engine: Any, library: Any) -> tuple[list[Any], str | None]:
    """The execution contexts of an open engine, set to run layer by layer, and its inspector's JSON.

    The engine shows neither to its callers, who have no business with them; a profile is the one exception.
    """
    session = engine._session
    for profile in session._profiles:
        profile.replay = None  # a captured graph reports no layers; this engine is not timed any more
    try:
        inspector = session._engine.create_engine_inspector()
        information: str | None = inspector.get_engine_information(library.LayerInformationFormat.JSON)
    except (AttributeError, RuntimeError):
        information = None
    return [profile.context for profile in session._profiles], information
