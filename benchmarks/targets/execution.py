"""In which precision an engine really computes: by its runtime's own word, else by the bundle's census; and whether
that is what was asked for."""

from collections import Counter
from typing import Any

from qanet.bundle import Bundle
from qanet.runtime.backends.base import Engine, graph_name
from qanet.runtime.backends.openvino import cpu_signature, openvino_core

NARROW_SHARE = 0.5  # least share of the matrix products that an INT8 engine computes in INT8
_TYPES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "u8": "int8", "i8": "int8"}
_PRODUCTS = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}
_ALIKE = {  # what counts as delivered
    "fp32": ("fp32",),
    "fp16": ("fp16", "bf16", "int8"),
    "bf16": ("bf16", "fp16", "int8"),
    "int8": ("int8",),
    "fp8": ("fp8",),
}


def describe_execution(bundle: Bundle, engine: Engine) -> dict[str, Any]:
    """Plain data on an open engine.

    Returns:
        runtime; graph: the bundle's, by its key; floating_point: the type of what is not INT8 ("f32", "bf16", "f16"),
        None where the runtime does not tell; multiply_add_shares: precision -> fraction, from the census of an engine
        that `qanet build` made for this runtime and CPU with the same floating-point type, None where the bundle has
        none; products: precision -> number of matrix products in the open engine, None where the runtime does not tell.
    """
    floating_point = getattr(engine, "floating_point", None)
    shares = None
    here = cpu_signature(openvino_core()) if engine.runtime == "openvino" else None
    for entry in bundle.engines:
        alike = (entry.get("runtime"), entry.get("precision")) == (engine.runtime, engine.precision)
        if alike and entry.get("hint", floating_point) == floating_point and entry.get("cpu", here) == here:
            shares = (entry.get("census") or {}).get("multiply_add_shares")
            break
    return {
        "runtime": engine.runtime,
        "graph": graph_name(engine),
        "floating_point": floating_point,
        "multiply_add_shares": shares,
        "products": count_products(engine),
    }


def count_products(engine: Engine) -> dict[str, int] | None:
    """Precision -> matrix products of an open OpenVINO engine, from the graph it executes; None for other runtimes."""
    compiled = getattr(engine, "compiled", None)
    if compiled is None or not hasattr(compiled, "get_runtime_model"):
        return None
    counts: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        if str(info["layerType"].astype(str)) in _PRODUCTS:
            counts[_TYPES.get(str(info["runtimePrecision"].astype(str)), "other")] += 1
    return dict(counts) or None


def precision_refusal(precision: str, execution: dict[str, Any]) -> str | None:
    """Why an engine may not be timed under the name of a precision; None where it may, or where nobody can tell.

    FP32 has to compute all matrix products in FP32, FP16 half of them or more in 16 bits or fewer, INT8 half of them
    or more in INT8: some layers are kept wide on purpose.
    """
    counts: dict[str, float] | None = execution.get("multiply_add_shares") or execution.get("products")
    if not counts or not sum(counts.values()):
        return None
    what = "multiply-adds" if execution.get("multiply_add_shares") else "matrix products"
    delivered = sum(counts.get(kind, 0) for kind in _ALIKE[precision]) / sum(counts.values())
    if delivered >= (1.0 if precision == "fp32" else NARROW_SHARE):
        return None
    found = ", ".join(f"{kind} {value / sum(counts.values()):.0%}" for kind, value in counts.items() if value)
    return f"it was not built in {precision}: its {what} run in {found} on {execution['runtime']}"


def execution_warning(precision: str, execution: dict[str, Any]) -> str | None:
    """A sentence when a narrow precision was asked for and what is not INT8 computes in 32 bits, or nobody can tell."""
    if precision == "fp32":
        return None
    if execution["floating_point"] == "f32":
        if precision not in ("fp16", "bf16"):
            return f"{precision}: {execution['runtime']} computed what is not INT8 in f32"
        return f"{precision}: {execution['runtime']} computed all of it in f32: this processor has no such type"
    if execution["floating_point"] is None and not execution["multiply_add_shares"]:
        return f"{precision}: {execution['runtime']} does not tell which precision its layers have"
    return None
