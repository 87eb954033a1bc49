"""What a CPU can do, by OpenVINO's word: one rule for the build and the runtime."""

import functools
from typing import Any

_HINT = "INFERENCE_PRECISION_HINT"
_OPENVINO_NAMES = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}


@functools.cache
def openvino_core() -> Any:
    """The process's one openvino.Core, which is never released.

    OpenVINO's CPU plug-in gives the thread that makes a Core another stack for signals, and takes it away with that
    Core. When several die in another order than they came, the thread is left with a stack that is no more, and the
    next signal, such as Ctrl-C, ends the process with a segmentation fault (seen with OpenVINO 2026.4.1).
    """
    import openvino

    return openvino.Core()


def floating_point(core: Any, precision: str, has_tail: bool = False) -> str:
    """The type nearest to the one asked for that this CPU has in hardware.

    Args:
        core: openvino.Core.
        precision: of the graph: "fp32", "fp16", "bf16", or "int8", whose float layers take 16 bits where they can.
        has_tail: the graph goes on from the logits to the scores. Told FP16, OpenVINO runs that in FP16 as well,
            where 1e-6 is zero and the score of an absent part NaN; told BF16, it leaves it in FP32.
    Returns:
        "fp32", "fp16" or "bf16".
    """
    if precision == "fp32":
        return precision
    # Where 16-bit types can only be emulated, slowly, the plugin's own choice is f32.
    if core.get_property("CPU", _HINT).to_string() == "f32":
        return "fp32"
    has = {name.lower() for name in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")} & {"fp16", "bf16"}
    has -= {"fp16"} if has_tail else set()
    wanted = "bf16" if precision == "int8" else precision
    return wanted if wanted in has else min(has, default="fp32")


def openvino_hint(core: Any, precision: str, has_tail: bool = False) -> str:
    """`floating_point` as a value of OpenVINO's INFERENCE_PRECISION_HINT."""
    return _OPENVINO_NAMES[floating_point(core, precision, has_tail)]


def float_rest_hints(core: Any) -> tuple[str, ...]:
    """Hints between which the float layers of an INT8 graph have a choice: ("bf16", "f32") where this CPU has BF16.

    BF16 is the default and not always the faster: a CPU may have its instructions and lack the units that make it
    fast, which OpenVINO does not tell; `qanet build` measures it. Without BF16 there is no choice, and none is given.
    """
    return ("bf16", "f32") if openvino_hint(core, "int8") == "bf16" else ()


def cpu_signature(core: Any) -> str:
    """Names the CPU and its number types: an engine file compiled under another signature is not loaded."""
    capabilities = sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    return f"{core.get_property('CPU', 'FULL_DEVICE_NAME')} [{', '.join(capabilities)}]"
