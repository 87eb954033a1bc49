"""The profile of a variant by the runtime that runs it, or why there is none."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.profile.openvino import profile_openvino
from qanet.benchmarks.profile.tensorrt import profile_tensorrt
from qanet.benchmarks.targets.variants import Variant
from qanet.runtime.backends.base import Engine
from qanet.runtime.backends.tensorrt.choice import MODULES


def profile_engine(
    variant: Variant,
    engine: Engine,
    crops: NDArray[np.uint8],
    box_scores: NDArray[np.float32],
    threads: int | None = None,
) -> dict[str, Any]:
    """See `describe_profile`; {"source": None, "reason": ...} for a runtime without a profiler."""
    if engine.runtime == "openvino":
        return profile_openvino(variant, crops, box_scores, threads=threads)
    if engine.runtime in MODULES:
        return profile_tensorrt(engine, crops, box_scores)
    return {"source": None, "reason": f"{engine.runtime} has no profiler here"}
