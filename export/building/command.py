"""`qanet build`: typed graphs and engines of a bundle, each proved by its census and by the known answers."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qanet.bundle import Bundle, open_bundle, safe_name, writable_copy
from qanet.commandline import emit, note, table
from qanet.cpu import sums_saturate
from qanet.errors import QanetError
from qanet.export.building.arguments import build_parser, engine_options, precisions_of, runtimes_of
from qanet.export.building.asking import complete_answers, runs_here
from qanet.export.building.engine import Order, build_engines, check_runtimes
from qanet.export.building.entry import engine_entry, engine_file
from qanet.export.building.refit import refit_bundle
from qanet.export.building.timing import describe, time_here
from qanet.export.engines.built import BuiltEngine
from qanet.export.graphs.typed_set import write_typed_graph
from qanet.files import write_bytes
from qanet.labels import PERSON_BOX1
from qanet.locking import locked
from qanet.runtime.backends.select import WrongAnswers


def keep_engines(bundle: Bundle, engines: Sequence[BuiltEngine], order: Order) -> list[dict[str, Any]]:
    """Put the engines of one order into the bundle, in place of all it had of that kind, and save it."""
    graph = bundle.manifest["files"][bundle.manifest["graphs"][order.graph]]["sha256"]
    kept = []
    entries = [engine_entry(built, order.precision, graph, order.graph) for built in engines]
    same = ("runtime", "version", "targets", "precision", "cpu")  # another CPU's engines stay
    bundle.manifest["engines"] = [e for e in bundle.engines if any(e.get(k) != entries[0].get(k) for k in same)]
    for built, entry in zip(engines, entries):
        file = engine_file(built, order.graph, one_of_many=len(engines) > 1)
        bundle.add_engine(file, built.data, entry)
        kept.append({"file": file, **{k: v for k, v in entry.items() if k != "census"}})
    bundle.save()
    return kept


def main(argv: Sequence[str]) -> int:
    """Entry point; 2 where a precision cannot be had here, or answers wrongly."""
    args = build_parser().parse_args(argv)
    say: Callable[[str], None] = (lambda line: None) if args.json else note
    precisions, runtimes = precisions_of(args.precision), runtimes_of(args.runtime)
    source = open_bundle(args.model)
    options = engine_options(args, source.input_hw)
    detects, no_vnni = source.labels == PERSON_BOX1, "openvino" in runtimes and sums_saturate()
    orders = [
        Order(runtime, precision, options, args, detects, no_vnni and runtime == "openvino")
        for runtime in runtimes
        for precision in precisions
    ]
    if args.saveEngine and len(orders) > 1:
        raise QanetError(
            "--saveEngine takes one engine", expected="one --runtime and one --precision", got=f"{len(orders)} engines"
        )
    if not args.refit:
        check_runtimes(orders)  # what cannot be honoured here is said before minutes are spent
    lacking = {order.precision: line for order in orders if (line := order.lacks)} if not args.refit else {}
    orders = [order for order in orders if order.precision not in lacking or order.runtime != "openvino"]
    if not orders:
        raise QanetError("; ".join(lacking.values()), next_command="ask for fp32 or int8, or build for a GPU")
    for line in lacking.values():
        note(line)
    bundle = writable_copy(source, Path(args.output) if args.output else None)
    lock = bundle.path / ".build.lock"
    with locked(lock, timeout_s=args.lock_timeout, doing=f"building into {bundle.path}", waiting=note):
        bundle = open_bundle(bundle.path)  # another build may have ended just now
        if args.refit:
            return refit_bundle(bundle, args.json)
        return _build(bundle, orders, lacking, args, say)


def _build(
    bundle: Bundle, orders: list[Order], lacking: dict[str, str], args: argparse.Namespace, say: Callable[[str], None]
) -> int:
    graphs = list(dict.fromkeys(order.graph for order in orders))
    for graph in graphs:
        write_typed_graph(bundle, graph)
    bundle.save()
    complete_answers(bundle, graphs, note)  # saved with the first engine: a build that fails leaves the bundle alone
    rows, entries, wrong = [], [], []
    for order in orders:
        try:
            order, engines = _right_engines(bundle, order, say)
        except WrongAnswers as error:
            wrong.append(error)
            continue
        if args.saveEngine:
            if len(engines) > 1:
                raise QanetError("--saveEngine takes one engine", expected="one bucket", got=f"{len(engines)} engines")
            write_bytes(Path(args.saveEngine), engines[0].data)
        kept = keep_engines(bundle, engines, order)
        entries += [{**entry, "seconds": round(built.seconds, 2)} for entry, built in zip(kept, engines)]
        rows += [_row(built, order) for built in engines]
    timings = _time(bundle, orders, say) if entries else []
    header = ("runtime", "precision", "target", "batch", "MiB", "multiply-adds in", "reformats", "seconds")
    document = {
        "bundle": str(bundle.path),
        "graphs": bundle.manifest["graphs"],
        "engines": entries,
        "not_built": lacking,
        "timings": timings,
        "wrong_answers": [error.line() for error in wrong],
    }
    if rows or not wrong:
        emit(args.json, document, table(rows, header) + f"\nwrote into {bundle.path}")
    if wrong:
        raise wrong[0]
    return 0


def _right_engines(bundle: Bundle, order: Order, say: Callable[[str], None]) -> tuple[Order, list[BuiltEngine]]:
    """The engines of an order; INT8 that answers wrongly with weights of 8 bits is built again with 7.

    The operating system's list of instruction sets may be that of another CPU, as under an emulator.
    """
    try:
        return order, build_engines(bundle, order, say)
    except WrongAnswers as error:
        if not order.has_another_graph:
            raise
        note(f"{error.fact} ({error.got}): built again for a CPU without VNNI")
        order = replace(order, no_vnni=True)
        write_typed_graph(bundle, order.graph)
        complete_answers(bundle, [order.graph], note)
        bundle.save()
        return order, build_engines(bundle, order, say)


def _time(bundle: Bundle, orders: list[Order], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Time what was built for this machine against each other, and note it for `auto`."""
    records = []
    for runtime in dict.fromkeys(order.runtime for order in orders):
        first = next(order for order in orders if order.runtime == runtime)
        entries = [e for e in bundle.engines if e["runtime"] == runtime]
        if not entries or (runtime != "openvino" and not any(_is_for_this_gpu(entry) for entry in entries)):
            continue
        outputs = first.outputs or tuple(entries[-1]["outputs"])
        precisions = list(dict.fromkeys(e["precision"] for e in entries))
        record = time_here(bundle, "cpu" if runtime == "openvino" else "cuda", outputs, precisions)
        if record is not None:
            say(describe(record))
            records.append(record)
    if records:
        bundle.save()
    return records


def _is_for_this_gpu(entry: dict[str, Any]) -> bool:
    return runs_here(tuple(entry["targets"]), bool(entry.get("stripped")))


def _row(built: BuiltEngine, order: Order) -> tuple[object, ...]:
    shares = built.census.multiply_add_shares
    share = ", ".join(f"{name} {value:.0%}" for name, value in shares.items() if value >= 0.005)
    batches = ", ".join(f"{low}-{high}" if low < high else f"{high}" for low, _, high in built.batches) or "any"
    return (
        built.runtime,
        f"{order.precision} (no VNNI)" if order.graph != order.precision else order.precision,
        safe_name("+".join(built.targets)),
        batches,
        f"{len(built.data) / 2**20:.1f}",
        share,
        built.census.reformats,
        f"{built.seconds:.1f}",
    )
