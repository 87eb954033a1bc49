"""The precision that an engine's layers really have, its check, and the record of a built engine in a manifest."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from qanet.bundle import NO_VNNI, safe_name
from qanet.errors import QanetError
from qanet.export.graphs.source import CONVOLUTIONS, ComputeNode
from qanet.runtime.backends.openvino import HINT, cpu_signature, openvino_core

PRECISIONS = ("int8", "fp8", "fp16", "bf16", "fp32", "other")  # narrow to wide; "other": wider integers, unknown
_NAMES_SHOWN = 8
_SUFFIX = {"openvino": "blob", "tensorrt": "plan", "tensorrt-rtx": "plan"}

Report = Callable[[str], None]  # called with one line at each step of a build


@dataclass(frozen=True)
class EngineLayer:
    """One layer of a built engine, in terms common to all runtimes.

    Attributes:
        name: the runtime's name for it.
        nodes: names of the ONNX nodes it came from.
        precision: one of PRECISIONS: of a matrix product the one it runs in, of other layers the widest they touch.
        computes: it is a matrix product by its kind.
        moves: it only moves, reorders or converts data.
        quantizes: it turns floating point into INT8 or FP8 and does not multiply matrices.
        product: one of PRECISIONS: what a matrix product would run in that was fused into a layer of another kind, as
            small ones are; "" for the same as precision.
    """

    name: str
    nodes: tuple[str, ...]
    precision: str
    computes: bool = False
    moves: bool = False
    quantizes: bool = False
    product: str = ""


@dataclass(frozen=True)
class ComputeLayer:
    """A convolution or matrix product of the ONNX graph and the engine's layer that computes it.

    Attributes:
        name: ONNX node name.
        op: ONNX operator.
        precision: one of PRECISIONS; "other" too when no engine layer names the node.
        multiply_adds: for one crop.
        engine_layer: the runtime's name of the layer that computes it, "" when none names it.
    """

    name: str
    op: str
    precision: str
    multiply_adds: int
    engine_layer: str


@dataclass(frozen=True)
class Census:
    """The precision of an engine, counted.

    Attributes:
        layers: layers per precision, every optimisation profile counted.
        reformats: layers that only move, reorder or convert data.
        requantizations: layers that only turn floating point back into INT8 (or FP8) between two such layers.
        compute: every convolution and matrix product.
        note: a remark on the counts, such as a precision the processor does not have.
    """

    layers: dict[str, int]
    reformats: int
    requantizations: int
    compute: tuple[ComputeLayer, ...]
    note: str = ""

    @property
    def layer_shares(self) -> dict[str, float]:
        """Share (0..1) of the layers in each precision."""
        return _shares(Counter(self.layers))

    @property
    def multiply_add_shares(self) -> dict[str, float]:
        """Share (0..1) of the multiply-adds in each precision."""
        counts: Counter[str] = Counter()
        for layer in self.compute:
            counts[layer.precision] += layer.multiply_adds
        return _shares(counts)

    def to_json(self) -> dict[str, Any]:
        """A dict for a manifest; the shares are written for people and recomputed on reading."""
        document = asdict(self)
        document["compute"] = [asdict(layer) for layer in self.compute]
        document["layer_shares"] = {name: round(share, 4) for name, share in self.layer_shares.items()}
        document["multiply_add_shares"] = {name: round(share, 4) for name, share in self.multiply_add_shares.items()}
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Census":
        """Read what to_json wrote.

        Raises:
            QanetError: a field is missing or of another kind.
        """
        try:
            compute = tuple(ComputeLayer(**layer) for layer in document["compute"])
            layers = {name: int(count) for name, count in document["layers"].items()}
            return cls(layers, document["reformats"], document["requantizations"], compute, document.get("note", ""))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise QanetError("not a precision census", got=f"{type(error).__name__}: {error}") from error


def take_census(layers: Iterable[EngineLayer], nodes: dict[str, ComputeNode], note: str = "") -> Census:
    """Count an engine's layers and find each compute node of its ONNX graph among them.

    Args:
        layers: the engine's layers, without the runtime's own signals, constants, inputs and outputs.
        nodes: what multiply_adds.compute_nodes found in the graph the engine was built from.
        note: passed on.
    """
    layers = list(layers)
    by_node: dict[str, list[EngineLayer]] = {}
    for layer in layers:
        for origin in layer.nodes:
            by_node.setdefault(origin, []).append(layer)
    compute = []
    for name, node in nodes.items():
        mentions = by_node.get(name, [])
        # A kernel that prepares a convolution's input mentions it too: only if nothing better does, it counts.
        candidates = [layer for layer in mentions if layer.computes] or mentions
        found = [(layer.product or layer.precision, layer.name) for layer in candidates] or [("other", "")]
        precision, engine_layer = max(found, key=lambda pair: PRECISIONS.index(pair[0]))  # the first of the widest
        compute.append(ComputeLayer(name, node.op, precision, node.multiply_adds, engine_layer))
    counts = Counter(layer.precision for layer in layers)
    return Census(
        layers={precision: counts[precision] for precision in PRECISIONS},
        reformats=sum(layer.moves for layer in layers),
        requantizations=sum(layer.quantizes for layer in layers),
        compute=tuple(compute),
        note=note,
    )


def check_delivered(census: Census, precision: str, *, keep: Collection[str] = ()) -> None:
    """Refuse an engine that is not in the precision it was asked for.

    Args:
        census: of the engine.
        precision: "fp32", "fp16", "bf16": every compute layer; "int8", "fp8": every convolution.
        keep: names of ONNX nodes that were left wider on purpose, as calibration does with sensitive layers.

    Raises:
        QanetError: names the compute layers in another precision; also for an engine that computes nothing, and for
            a precision that does not exist.
    """
    if precision not in PRECISIONS[:-1]:
        raise QanetError(f"unknown precision {precision!r}; choose from {', '.join(PRECISIONS[:-1])}")
    narrow = precision in ("int8", "fp8")
    asked = [layer for layer in census.compute if not narrow or layer.op in CONVOLUTIONS]
    if not any(layer.name not in keep for layer in asked):
        raise QanetError(
            f"the engine has no layer that could be in {precision}",
            expected="convolutions",
            got="none" if not asked else f"all {len(asked)} left wider",
        )
    missed = [layer for layer in asked if layer.precision != precision and layer.name not in keep]
    if not missed:
        return
    shown = ", ".join(f"{layer.name} ({layer.precision})" for layer in missed[:_NAMES_SHOWN])
    more = f" and {len(missed) - _NAMES_SHOWN} more" if len(missed) > _NAMES_SHOWN else ""
    graph = "a Q/DQ graph ('qanet calibrate')" if narrow else f"a graph typed {precision}"
    raise QanetError(
        f"{precision} was asked for and not delivered in {len(missed)} of {len(asked)} compute layers: {shown}{more}"
        + (f" [{census.note}]" if census.note else ""),
        expected=precision,
        got=", ".join(f"{count} in {name}" for name, count in Counter(layer.precision for layer in missed).items()),
        next_command=f"build from {graph} on a processor that has {precision}, or ask for what was delivered",
    )


def _shares(counts: Counter[str]) -> dict[str, float]:
    total = sum(counts.values())
    return {precision: counts[precision] / total if total else 0.0 for precision in PRECISIONS}


@dataclass(frozen=True)
class BuiltEngine:
    """An engine in memory and the facts a manifest needs about it.

    Attributes:
        data: the engine file's bytes.
        runtime: "tensorrt", "tensorrt-rtx" or "openvino".
        version: of the library that built it, in the library's own form.
        targets: GPUs it runs on, such as "sm_86", or "cpu-" and an architecture.
        census: the precision of its layers.
        seconds: wall-clock time of parsing and building.
        messages: warnings and errors of the library, and a precision that was not delivered; each once.
        inputs: names of the inputs that the kept outputs need.
        outputs: names of the outputs, in the graph's order or the order asked for.
        options: properties the loader must set to get this precision again, by the runtime's own names.
        batches: (min, opt, max) batch of each optimisation profile; none for OpenVINO, which takes any.
        stripped: the weights are left out and must be put back before it runs.
        float_rest: choice of the type of the layers that are not INT8, for the manifest; empty without a choice.
        requires: version and instruction set that the library declares the data to need; "" if none.
    """

    data: bytes = field(repr=False)
    runtime: str
    version: str
    targets: tuple[str, ...]
    census: Census
    seconds: float
    messages: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    batches: tuple[tuple[int, int, int], ...] = ()
    stripped: bool = False
    float_rest: dict[str, Any] = field(default_factory=dict)
    requires: str = ""


def engine_file(built: BuiltEngine, graph: str, one_of_many: bool) -> str:
    """Path of an engine in its bundle.

    Args:
        graph: key of the bundle's graph that it was built from.
        one_of_many: it is built for one batch bucket of several, which is then in the name.
    """
    bucket = f".b{built.batches[0][2]}" if one_of_many else ""
    target = safe_name("+".join(built.targets))
    return f"engines/{built.runtime}-{built.version}-{target}.{graph}{bucket}.{_SUFFIX[built.runtime]}"


def engine_entry(
    built: BuiltEngine, precision: str, graph_sha256: str | None, graph: str | None = None
) -> dict[str, Any]:
    """The manifest's entry of an engine.

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
        entry["hint"] = built.options[HINT]
    if built.float_rest:
        entry["float_rest"] = dict(built.float_rest)
    return entry
