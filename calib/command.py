"""`qanet calibrate`: crops of people -> scales.json and the INT8 graph, both into the bundle; and the search."""

import argparse
import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qanet.bundle import NO_VNNI, Bundle, open_bundle, writable_copy
from qanet.calib.bundle_search import search_bundle
from qanet.calib.calibrate import calibrate_cached
from qanet.calib.graph import file_sha256
from qanet.calib.quantize import NARROW_TYPES, int8_of_this_cpu, write_quantised
from qanet.calib.ranges import DEFAULT_PERCENTILE, METHODS
from qanet.calib.scales import Scales, load_scales
from qanet.calib.search import HEADER, METRICS, Found, rows
from qanet.commandline import command_parser, emit, note, table
from qanet.errors import QanetError
from qanet.labels import PERSON_BOX1
from qanet.runtime.answers.ask import answers_missing
from qanet.runtime.answers.known import renew_answers
from qanet.runtime.answers.verdicts import TOLERANCES
from qanet.runtime.backends.onnxruntime import exact_outputs
from qanet.runtime.crops import people_crops
from qanet.runtime.evaluate import open_accuracy


def quantize_bundle(bundle: Bundle, precision: str = "int8") -> None:
    """Write the graph of a key of NARROW_TYPES into a bundle, from its FP32 graph and scales.json, unsaved.

    Raises:
        QanetError: no scales yet, or scales that do not fit the graph.
    """
    if "scales.json" not in bundle.manifest["files"]:
        raise QanetError(
            f"{bundle.path} has no scales.json, so there is no {precision.upper()}",
            expected="a calibrated bundle",
            got="FP32 only",
            next_command=f"qanet calibrate {bundle.path} --data DIR",
        )
    bundle.add_file(f"model.{precision}.onnx", quantised_graph(bundle, precision))
    bundle.manifest["graphs"][precision] = f"model.{precision}.onnx"


def quantised_graph(bundle: Bundle, precision: str) -> bytes:
    """The Q/DQ graph of a key of NARROW_TYPES, from the bundle's FP32 graph and scales.json; nothing is written."""
    with tempfile.TemporaryDirectory() as folder:
        model, scales, quantised = (Path(folder) / name for name in ("model.onnx", "scales.json", "quantised.onnx"))
        model.write_bytes(bundle.graph("fp32"))
        scales.write_bytes(bundle.read("scales.json"))
        write_quantised(model, load_scales(scales, model), quantised, precision)
        return quantised.read_bytes()


def renew_narrow_answers(bundle: Bundle) -> None:
    """What both INT8 graphs of the bundle's scales answer, and FP32 where that is missing, into the bundle, unsaved.

    That for CPUs without VNNI too, which may only be written later, on the CPU that needs it.

    Raises:
        QanetError: ONNX Runtime is not installed, or a graph does not run.
    """
    wanted = answers_missing(bundle, ("fp32", "int8", NO_VNNI))
    graphs = {name: bundle.graph(name) if name == "fp32" else quantised_graph(bundle, name) for name in wanted}
    if graphs:
        renew_answers(bundle, graphs, exact_outputs, TOLERANCES)


def calibrate_bundle(
    bundle: Bundle,
    crops: Any,
    method: str,
    progress: Callable[[int], None] | None = None,
    *,
    percentile: float = DEFAULT_PERCENTILE,
) -> tuple[Scales, bool]:
    """Scales of the bundle's graph on an iterable of crop batches, unwritten; True where the cache had them."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        model.write_bytes(bundle.graph("fp32"))
        return calibrate_cached(model, crops, method, percentile=percentile, progress=progress)


def adopted_scales(bundle: Bundle, path: Path) -> Scales:
    """Another calibration's ranges for this bundle's graph, unwritten: of the network it was fine-tuned from, say.

    Raises:
        QanetError: the record names tensors or nodes that this graph has not, or lacks some.
    """
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        model.write_bytes(bundle.graph("fp32"))
        scales = dataclasses.replace(load_scales(path), model_sha256=file_sha256(model))
        scales.check(model)
    return scales


def write_scales(bundle: Bundle, scales: Scales) -> None:
    """Scales and INT8 graph into the bundle, and everything out of it that another calibration made."""
    bundle.add_file("scales.json", scales.to_json().encode())
    for precision in NARROW_TYPES:
        bundle.manifest["graphs"].pop(precision, None)
        bundle.manifest["accuracy"].pop(precision, None)
    for graph in dict.fromkeys(("int8", int8_of_this_cpu())):
        quantize_bundle(bundle, graph)
    renew_narrow_answers(bundle)
    bundle.manifest["engines"] = [e for e in bundle.engines if e["precision"] not in NARROW_TYPES]
    bundle.save()


def _arguments() -> argparse.ArgumentParser:
    parser = command_parser("calibrate", "Find INT8 ranges on crops of people and write the INT8 graph.")
    parser.add_argument("model", metavar="NAME.qanet")
    parser.add_argument("--data", metavar="DIR", help="data set folder, folder of images, or a video")
    parser.add_argument("--method", default="entropy", choices=sorted(METHODS))
    parser.add_argument("--percentile", type=float, default=DEFAULT_PERCENTILE, metavar="P", help="of that method")
    parser.add_argument("--crops", type=int, default=256, metavar="N", help="at most so many crops (256)")
    parser.add_argument("--scales", metavar="FILE", help="take the ranges of this scales.json in place of --data's")
    parser.add_argument("--output", metavar="NAME.qanet", help="write a copy instead of the bundle itself")
    search = parser.add_argument_group("search", "leave in float just what keeps the drop of a metric within a budget")
    search.add_argument("--budget", type=float, metavar="DROP", help="of the metric x 100; runs the search")
    search.add_argument("--metric", default="miou", choices=tuple(METRICS))
    search.add_argument("--images", type=int, default=100, metavar="N", help="of the validation split (100)")
    search.add_argument("--threads", type=int, metavar="N", help="CPU threads of the search's inference")
    return parser


def _checked(argv: Sequence[str]) -> argparse.Namespace:
    args = _arguments().parse_args(argv)
    if args.crops < 2 or args.images < 1:
        raise QanetError("bad --crops or --images", expected="2 crops, 1 image or more", got=(args.crops, args.images))
    if args.budget is not None and not args.budget >= 0:
        raise QanetError("bad --budget", expected="0 or more", got=args.budget)
    if args.data is None and (args.scales is None or args.budget is not None):
        raise QanetError("no data given", expected="--data DIR", next_command="qanet calibrate --help")
    return args


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    args = _checked(argv)
    source = open_bundle(args.model)
    scales, how = _scales(args, source)
    bundle = writable_copy(source, Path(args.output) if args.output else None)  # when nothing can be refused any more
    write_scales(bundle, scales)
    note(f"scales {how}")
    document = {
        "bundle": str(bundle.path),
        "method": scales.method,
        "crops": scales.crops,
        "data_sha256": scales.data_sha256,
    }
    text = f"wrote scales.json and model.int8.onnx into {bundle.path}\nnext: qanet build {bundle.path}"
    if args.budget is not None:
        found = _search(args, bundle, scales)
        document["search"] = dataclasses.asdict(found)
        text = f"{_search_text(found)}\n\n{text}"
    emit(args.json, document, text)
    return 0


def _scales(args: argparse.Namespace, bundle: Bundle) -> tuple[Scales, str]:
    """The scales that were asked for, and where they come from."""
    if args.scales:
        return adopted_scales(bundle, Path(args.scales)), f"of {Path(args.scales).name}"
    from tqdm import tqdm

    detects = bundle.labels == PERSON_BOX1  # looks at whole images
    crops = people_crops(Path(args.data), bundle.input_hw, args.crops, whole=detects)
    with tqdm(total=crops.expected, unit="crop", desc="calibrate", disable=args.json or None) as bar:
        scales, is_cached = calibrate_bundle(
            bundle, crops, args.method, lambda _: bar.update() and None, percentile=args.percentile
        )
    return scales, f"by {scales.method} over {scales.crops} crops{', the network run before' if is_cached else ''}"


def _search(args: argparse.Namespace, bundle: Bundle, scales: Scales) -> Found:
    from tqdm import tqdm

    measure, digest = open_accuracy(bundle, Path(args.data), args.images, args.threads)
    with tqdm(unit="block", desc="sensitivity", disable=args.json or None) as bar:
        scales, found = search_bundle(
            bundle, scales, measure, digest, args.metric, args.budget, args.threads, lambda _: bar.update() and None
        )
    write_scales(bundle, scales)
    return found


def _search_text(found: Found) -> str:
    accuracies = [
        (label, *(round(values[metric], 2) for metric in METRICS))
        for label, values in (("FP32", found.fp32), ("all INT8", found.all_int8), ("chosen", found.chosen))
    ]
    names = ("x 100", *METRICS.values())
    kept = ", ".join(found.in_float) or "nothing"
    return f"{table(rows(found), HEADER)}\n\n{table(accuracies, names)}\n\nleft in float: {kept}"
