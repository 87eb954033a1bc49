"""`qanet build`: typed graphs and engines of a bundle, each proved to be in the precision it was asked for."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qanet.bundle import Bundle, open_bundle, safe_name, writable_copy
from qanet.cli.commandline import emit, note, table
from qanet.errors import QanetError
from qanet.export.building.arguments import build_parser, engine_options, precisions_of, runtimes_of
from qanet.export.building.engine import OpenEngine, Order, build_engines, check_runtimes
from qanet.export.building.entry import engine_entry, engine_file
from qanet.export.building.refit import refit_bundle
from qanet.export.engines.built import BuiltEngine
from qanet.export.graphs.typed_set import Quantize, write_typed_graph
from qanet.files import write_bytes
from qanet.labels import PERSON_BOX1
from qanet.locking import locked


def keep_engines(bundle: Bundle, engines: Sequence[BuiltEngine], precision: str) -> list[dict[str, Any]]:
    """Put the engines of one order into the bundle, in place of all it had of that kind, and save it."""
    graph = bundle.manifest["files"][bundle.manifest["graphs"][precision]]["sha256"]
    kind = (engines[0].runtime, engines[0].version, list(engines[0].targets), precision)
    bundle.manifest["engines"] = [
        e for e in bundle.engines if (e["runtime"], e.get("version"), e.get("targets"), e["precision"]) != kind
    ]
    kept = []
    for built in engines:
        file = engine_file(built, precision, one_of_many=len(engines) > 1)
        entry = engine_entry(built, precision, graph)
        bundle.add_engine(file, built.data, entry)
        kept.append({"file": file, **{k: v for k, v in entry.items() if k != "census"}})
    bundle.save()
    return kept


def main(argv: Sequence[str], *, quantize: Quantize, open_engine: OpenEngine) -> int:
    """Entry point; the callables are those of other rooms that the command table hands over.

    Args:
        quantize: qanet.calib.command.quantize_bundle.
        open_engine: qanet.runtime.engines.select.open_engine.
    """
    args = build_parser().parse_args(argv)
    say: Callable[[str], None] = (lambda line: None) if args.json else note
    precisions, runtimes = precisions_of(args.precision), runtimes_of(args.runtime)
    source = open_bundle(args.model)
    options = engine_options(args, source.input_hw)
    detects = source.labels == PERSON_BOX1
    orders = [Order(runtime, precision, options, args, detects) for runtime in runtimes for precision in precisions]
    if args.saveEngine and len(orders) > 1:
        raise QanetError("--saveEngine takes one engine", expected="one --runtime and one --precision",
                         got=f"{len(orders)} engines")  # fmt: skip
    if not args.refit:
        check_runtimes(orders)  # what cannot be honoured here is said before minutes are spent
    bundle = writable_copy(source, Path(args.output) if args.output else None)
    lock = bundle.path / ".build.lock"
    with locked(lock, timeout_s=args.lock_timeout, doing=f"building into {bundle.path}", waiting=note):
        bundle = open_bundle(bundle.path)  # another build may have ended just now
        if args.refit:
            return refit_bundle(bundle, args.json)
        return _build(bundle, orders, quantize, open_engine, args, say)


def _build(
    bundle: Bundle, orders: list[Order], quantize: Quantize, open_engine: OpenEngine, args: argparse.Namespace,
    say: Callable[[str], None],
) -> int:  # fmt: skip
    for precision in dict.fromkeys(order.precision for order in orders):
        write_typed_graph(bundle, precision, quantize)
    bundle.save()
    rows, entries = [], []
    for order in orders:
        engines = build_engines(bundle, order, open_engine, say)
        if args.saveEngine:
            if len(engines) > 1:
                raise QanetError("--saveEngine takes one engine", expected="one bucket", got=f"{len(engines)} engines")
            write_bytes(Path(args.saveEngine), engines[0].data)
        kept = keep_engines(bundle, engines, order.precision)
        entries += [{**entry, "seconds": round(built.seconds, 2)} for entry, built in zip(kept, engines)]
        rows += [_row(built, order.precision) for built in engines]
    header = ("runtime", "precision", "target", "batch", "MiB", "multiply-adds in", "reformats", "seconds")
    document = {"bundle": str(bundle.path), "graphs": bundle.manifest["graphs"], "engines": entries}
    emit(args.json, document, table(rows, header) + f"\nwrote into {bundle.path}")
    return 0


def _row(built: BuiltEngine, precision: str) -> tuple[object, ...]:
    shares = built.census.multiply_add_shares
    share = ", ".join(f"{name} {value:.0%}" for name, value in shares.items() if value >= 0.005)
    batches = ", ".join(f"{low}-{high}" if low < high else f"{high}" for low, _, high in built.batches) or "any"
    size = f"{len(built.data) / 2**20:.1f}"
    return (
        built.runtime, precision, safe_name("+".join(built.targets)), batches, size, share, built.census.reformats,
        f"{built.seconds:.1f}",
    )  # fmt: skip
