"""TensorRT or TensorRT-RTX as installed here, and the GPUs it can build for."""

import importlib
from collections.abc import Sequence
from typing import Any

from qanet.errors import QanetError
from qanet.export.engines.this_gpu import this_gpu

RTX_TARGETS = ("sm_86", "sm_120")  # GeForce 30 and 50; what lies between is another --target
_MODULES = {
    "tensorrt": ("tensorrt", "pip install 'qanet-edge[tensorrt]'"),
    "tensorrt-rtx": ("tensorrt_rtx", "pip install 'qanet-edge[rtx]'"),
}
_OLDEST_TENSORRT = (10, 3)


def load_library(runtime: str) -> Any:
    """Import the module of `runtime`, "tensorrt" or "tensorrt-rtx".

    Raises:
        QanetError: another name, not installed, or older than strong typing works in.
    """
    if runtime not in _MODULES:
        raise QanetError("unknown TensorRT runtime", expected=f"one of {', '.join(_MODULES)}", got=runtime)
    name, install = _MODULES[runtime]
    try:
        trt = importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: the wheel is there, a library it loads is not
        raise QanetError(f"{runtime} is not installed", got=str(error), next_command=install) from error
    version = tuple(int(part) for part in trt.__version__.split(".")[:2])
    if runtime == "tensorrt" and version < _OLDEST_TENSORRT:
        raise QanetError("TensorRT is too old", expected="10.3 or newer", got=trt.__version__, next_command=install)
    return trt


def check_targets(trt: Any, runtime: str, targets: Sequence[str] | None) -> tuple[str, ...]:
    """The targets to build for, each once; None means RTX_TARGETS for TensorRT-RTX and this GPU for TensorRT.

    Raises:
        QanetError: a target the library cannot build for, or none; for TensorRT, no driver or another GPU.
    """
    if runtime == "tensorrt":
        here = this_gpu()
        if targets is not None and tuple(targets) != (here,):
            raise QanetError(
                "TensorRT builds on the GPU that will run the engine", expected=here, got=", ".join(targets) or "none"
            )
        return (here,)
    known = [f"sm_{name[2:]}" for name in trt.ComputeCapability.__members__ if name[2:].isdigit()]
    chosen = tuple(dict.fromkeys(RTX_TARGETS if targets is None else targets))
    unknown = [target for target in chosen if target not in known]
    if unknown or not chosen:
        raise QanetError(
            f"TensorRT-RTX {trt.__version__} cannot build for {', '.join(unknown) or 'no target'}",
            expected=f"some of {', '.join(known)}",
            got=", ".join(chosen) or "none",
            next_command="build on that GPU itself with --runtime tensorrt" if unknown else None,
        )
    return chosen
