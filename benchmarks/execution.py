"""In which precision an engine really computes, as far as its runtime and the bundle's census tell."""

from typing import Any

from qanet.bundle import Bundle
from qanet.runtime.engines.base import Engine
from qanet.runtime.engines.select import built_entry


def describe_execution(bundle: Bundle, engine: Engine) -> dict[str, Any]:
    """Plain data on an open engine.

    Returns:
        runtime; floating_point: the type of what is not INT8 ("f32", "bf16", "f16"), None where the runtime does not
        tell; multiply_add_shares: precision -> fraction, from the census of the engine that `qanet build` made for
        this runtime, None where the bundle has none.
    """
    entry = built_entry(bundle, engine.runtime, engine.precision)
    census = (entry or {}).get("census") or {}
    return {
        "runtime": engine.runtime,
        "floating_point": _floating_point(engine),
        "multiply_add_shares": census.get("multiply_add_shares"),
    }


def execution_warning(precision: str, execution: dict[str, Any], name: str) -> str | None:
    """A sentence when a narrow precision was asked for and the rest of the graph ran wider than it had to."""
    unbuilt = execution["multiply_add_shares"] is None
    if precision == "fp32" or execution["floating_point"] != "f32" or not unbuilt:
        return None
    return (
        f"{precision}: OpenVINO computed what is not INT8 in f32, because the bundle has no OpenVINO engine that says "
        f"what this CPU can do; next: qanet build {name} --precision {precision} --runtime openvino"
    )


def _floating_point(engine: Engine) -> str | None:
    compiled = getattr(engine, "compiled", None)  # OpenVINO's
    if compiled is None:
        return None
    return str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
