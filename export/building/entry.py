"""How an engine is called in its bundle, and what the manifest says of it."""

from typing import Any

from qanet.bundle import NO_VNNI, safe_name
from qanet.export.engines.built import BuiltEngine
from qanet.runtime.backends.openvino import cpu_signature, openvino_core

_SUFFIX = {"openvino": "blob", "tensorrt": "plan", "tensorrt-rtx": "plan"}


def engine_file(built: BuiltEngine, graph: str, one_of_many: bool) -> str:
    """Where an engine lies in its bundle; one that is built for one bucket of several has the batch in its name."""
    bucket = f".b{built.batches[0][2]}" if one_of_many else ""
    target = safe_name("+".join(built.targets))
    return f"engines/{built.runtime}-{built.version}-{target}.{graph}{bucket}.{_SUFFIX[built.runtime]}"


def engine_entry(
    built: BuiltEngine, precision: str, graph_sha256: str | None, graph: str | None = None
) -> dict[str, Any]:
    """What the manifest says of an engine.

    Args:
        graph_sha256: of the bundle's graph it was built from.
        graph: the key of that graph; None for the precision.
    """
    entry: dict[str, Any] = {
        "runtime": built.runtime,
        "version": built.version,
        "precision": precision,
        "targets": list(built.targets),
        "inputs": list(built.inputs),
        "outputs": list(built.outputs),
        "census": built.census.to_json(),
        "options": dict(built.options),
        "messages": list(built.messages),
        "graph_sha256": graph_sha256,
    }
    if precision == "int8":
        entry |= {"graph": graph or precision, "weights": "pairs within 128" if graph == NO_VNNI else "8 bits"}
    if built.batches:
        entry["batches"] = [list(batch) for batch in built.batches]
    if built.stripped:
        entry["stripped"] = True
    if built.runtime == "openvino":
        entry["cpu"] = cpu_signature(openvino_core())  # the blob holds code for this CPU's instructions
        entry["hint"] = built.options["INFERENCE_PRECISION_HINT"]
    if built.float_rest:
        entry["float_rest"] = dict(built.float_rest)
    return entry
