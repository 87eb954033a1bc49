"""In which precision an engine really computes, as far as its runtime and the bundle's census tell."""

from typing import Any

from qanet.bundle import Bundle
from qanet.runtime.engines.base import Engine


def describe_execution(bundle: Bundle, engine: Engine) -> dict[str, Any]:
    """Plain data on an open engine.

    Returns:
        runtime; floating_point: the type of what is not INT8 ("f32", "bf16", "f16"), None where the runtime does not
        tell; multiply_add_shares: precision -> fraction, from the census of an engine that `qanet build` made for
        this runtime with the same floating-point type, None where the bundle has none.
    """
    floating_point = getattr(engine, "floating_point", None)
    shares = None
    for entry in bundle.engines:
        alike = (entry.get("runtime"), entry.get("precision")) == (engine.runtime, engine.precision)
        if alike and entry.get("hint", floating_point) == floating_point:
            shares = (entry.get("census") or {}).get("multiply_add_shares")
            break
    return {"runtime": engine.runtime, "floating_point": floating_point, "multiply_add_shares": shares}


def execution_warning(precision: str, execution: dict[str, Any]) -> str | None:
    """A sentence when a narrow precision was asked for and 32 bits were computed."""
    if precision == "fp32" or execution["floating_point"] != "f32":
        return None
    what = "all of it" if precision == "fp16" else "what is not INT8"
    return f"{precision}: {execution['runtime']} computed {what} in f32: this processor has no 16-bit type for it"
