"""Builds engines into a bundle: typed graphs, engines, known answers, and the times that `auto` of the runtime goes by.

report = build(open_bundle("ccp13-lite0"), BuildOptions(precisions=["fp32", "int8"]), output="mine.qanet")
report.check()  # raises where an engine answered wrongly
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qanet.bundle import Bundle, open_bundle, writable_copy
from qanet.errors import QanetError
from qanet.export.backends import tensorrt
from qanet.export.backends.census import BuiltEngine, Report, engine_entry, engine_file
from qanet.export.backends.tensorrt_library import check_targets, load_library
from qanet.export.building.answers import complete_answers, runs_here
from qanet.export.building.engine import build_engines
from qanet.export.building.options import BuildOptions, Order, check_runtimes
from qanet.export.building.timing import describe, time_here
from qanet.export.graphs.typed import builder_graph, write_typed_graph
from qanet.files import locked, write_bytes
from qanet.paths import check_outputs
from qanet.runtime.backends.select import WrongAnswers


@dataclass(frozen=True)
class KeptEngine:
    """An engine that was built and is now in the bundle.

    Attributes:
        entry: of the manifest, with its `file`.
        built: the engine's facts, without its bytes.
        bytes: size of the engine.
    """

    entry: dict[str, Any]
    built: BuiltEngine
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """The entry without its census, and the seconds that the build took."""
        return {**{k: v for k, v in self.entry.items() if k != "census"}, "seconds": round(self.built.seconds, 2)}


@dataclass(frozen=True)
class BuildReport:
    """What `build` did.

    Attributes:
        bundle: that was built into, saved.
        engines: kept, in the order they were built.
        not_built: precision -> why this machine cannot deliver it.
        timings: records of the manifest, one per runtime whose engines were timed here.
        wrong_answers: of engines that were not kept.
    """

    bundle: Bundle
    engines: tuple[KeptEngine, ...]
    not_built: dict[str, str]
    timings: tuple[dict[str, Any], ...]
    wrong_answers: tuple[WrongAnswers, ...]

    def check(self) -> None:
        """Raise the first of `wrong_answers`, if there are any."""
        for error in self.wrong_answers:
            raise error

    def to_json(self) -> dict[str, Any]:
        """The document of `qanet build --json`."""
        return {
            "bundle": str(self.bundle.path),
            "graphs": self.bundle.manifest["graphs"],
            "engines": [engine.to_json() for engine in self.engines],
            "not_built": self.not_built,
            "timings": list(self.timings),
            "wrong_answers": [error.line() for error in self.wrong_answers],
        }


def build(
    bundle: Bundle,
    options: BuildOptions | None = None,
    *,
    output: Path | str | None = None,
    report: Report | None = None,
    notice: Report | None = None,
) -> BuildReport:
    """Build engines into a bundle, each checked before it is kept; the bundle is saved.

    A 16-bit precision that this CPU computes in FP32 only is not built, and named in `BuildReport.not_built`.

    Args:
        bundle: source of the graphs; a shipped one needs `output`.
        options: None for BuildOptions().
        output: build into a copy at this path.
        report: called with one line at each step.
        notice: called with one line on anything unusual; None: as `report`.
    Raises:
        QanetError: a library or a graph is missing, no precision can be delivered here, or a build fails. The bundle
            then keeps what it had.
    """
    options = options or BuildOptions()
    report = report or (lambda line: None)
    notice = notice or report
    orders = options.orders(bundle)
    if options.save_engine and len(orders) > 1:
        raise QanetError(
            "--saveEngine takes one engine", expected="one --runtime and one --precision", got=f"{len(orders)} engines"
        )
    check_outputs([options.save_engine], inside=[bundle.path, Path(output) if output else None])
    check_runtimes(orders)
    not_built = {order.precision: reason for order in orders if (reason := order.lacks)}
    orders = [order for order in orders if not order.lacks]
    if not orders:
        raise QanetError("; ".join(not_built.values()), next_command="ask for fp32 or int8, or build for a GPU")
    for line in not_built.values():
        notice(line)
    with _locked_copy(bundle, output, options.lock_timeout_s, notice) as target:
        graphs = list(dict.fromkeys(order.graph for order in orders))
        for graph in graphs:
            write_typed_graph(target, graph)
        target.save()
        complete_answers(target, graphs, notice)  # saved with the first engine: a failed build leaves the bundle alone
        engines: list[KeptEngine] = []
        wrong: list[WrongAnswers] = []
        for order in orders:
            try:
                engines += _build_order(target, order, report, notice)
            except WrongAnswers as error:
                wrong.append(error)
        timings = _time(target, orders, report) if engines else []
        return BuildReport(target, tuple(engines), not_built, tuple(timings), tuple(wrong))


def refit(
    bundle: Bundle, *, output: Path | str | None = None, lock_timeout_s: float = 600.0, notice: Report | None = None
) -> tuple[Bundle, list[str]]:
    """Put the weights into every stripped engine that is for this GPU and this TensorRT, and save the bundle.

    Args:
        output, lock_timeout_s, notice: as `build` and BuildOptions.
    Returns:
        The bundle, and the files of the engines that were refitted.
    Raises:
        QanetError: there is no such engine, or the weights do not fit.
    """
    with _locked_copy(bundle, output, lock_timeout_s, notice or (lambda line: None)) as target:
        stripped = [entry for entry in target.engines if entry.get("stripped")]
        if not stripped:
            raise QanetError(
                f"{target.path} has no engine without weights",
                expected="an engine of qanet build --strip-weights",
                got=f"{len(target.engines)} engines with weights",
            )
        trt = load_library("tensorrt")
        (here,) = check_targets(trt, "tensorrt", None)
        fitting = [e for e in stripped if here in e["targets"] and e["version"] == trt.__version__]
        if not fitting:
            got = ", ".join(f"{'+'.join(e['targets'])} of {e['version']}" for e in stripped)
            raise QanetError(
                "no engine without weights is for this machine",
                expected=f"{here} of {trt.__version__}",
                got=got,
                next_command=f"qanet build {target.path} --runtime tensorrt",
            )
        for entry in fitting:
            graph = builder_graph(target, entry["precision"], "tensorrt")
            whole = tensorrt.refit(target.read(entry["file"]), graph, tuple(entry["outputs"]))
            target.add_engine(entry["file"], whole, {k: v for k, v in entry.items() if k != "stripped"})
        target.save()
        return target, [entry["file"] for entry in fitting]


@contextmanager
def _locked_copy(bundle: Bundle, output: Path | str | None, lock_timeout_s: float, notice: Report) -> Iterator[Bundle]:
    """The bundle to write into, which no other build writes into meanwhile."""
    path = writable_copy(bundle, Path(output) if output else None).path
    with locked(path / ".build.lock", timeout_s=lock_timeout_s, doing=f"building into {path}", waiting=notice):
        yield open_bundle(path)  # read again: another build may have changed it


def _build_order(bundle: Bundle, order: Order, report: Report, notice: Report) -> list[KeptEngine]:
    """Build the engines of an order and keep them in place of the bundle's engines of that kind; saved.

    INT8 that answers wrongly with weights of 8 bits is built again with 7: the operating system's list of instruction
    sets may be that of another CPU, as under an emulator.
    """
    try:
        built = build_engines(bundle, order, report)
    except WrongAnswers as error:
        if not order.has_another_graph:
            raise
        notice(f"{error.fact} ({error.got}): built again for a CPU without VNNI")
        order = replace(order, no_vnni=True)
        write_typed_graph(bundle, order.graph)
        complete_answers(bundle, [order.graph], notice)
        bundle.save()
        built = build_engines(bundle, order, report)
    if order.options.save_engine:
        if len(built) > 1:
            raise QanetError("--saveEngine takes one engine", expected="one bucket", got=f"{len(built)} engines")
        write_bytes(order.options.save_engine, built[0].data)
    return keep_engines(bundle, built, order)


def keep_engines(bundle: Bundle, engines: Sequence[BuiltEngine], order: Order) -> list[KeptEngine]:
    """Put the engines of one order into the bundle, in place of its engines of that kind, and save it."""
    graph = bundle.manifest["files"][bundle.manifest["graphs"][order.graph]]["sha256"]
    entries = [engine_entry(built, order.precision, graph, order.graph) for built in engines]
    same = ("runtime", "version", "targets", "precision", "cpu")  # another CPU's engines stay
    bundle.manifest["engines"] = [e for e in bundle.engines if any(e.get(k) != entries[0].get(k) for k in same)]
    kept = []
    for built, entry in zip(engines, entries):
        file = engine_file(built, order.graph, one_of_many=len(engines) > 1)
        bundle.add_engine(file, built.data, entry)
        kept.append(KeptEngine({"file": file, **entry}, replace(built, data=b""), len(built.data)))
    bundle.save()
    return kept


def _time(bundle: Bundle, orders: list[Order], report: Report) -> list[dict[str, Any]]:
    """Time the engines that were built for this machine in turns, and record it for `auto`."""
    records = []
    for runtime in dict.fromkeys(order.runtime for order in orders):
        first = next(order for order in orders if order.runtime == runtime)
        entries = [e for e in bundle.engines if e["runtime"] == runtime]
        on_gpu = runtime != "openvino"
        if not entries or (on_gpu and not any(runs_here(e["targets"], bool(e.get("stripped"))) for e in entries)):
            continue
        outputs = first.outputs or tuple(entries[-1]["outputs"])
        precisions = list(dict.fromkeys(e["precision"] for e in entries))
        record = time_here(bundle, "cuda" if on_gpu else "cpu", outputs, precisions)
        if record is not None:
            report(describe(record))
            records.append(record)
    if records:
        bundle.save()
    return records
