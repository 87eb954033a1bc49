"""`qanet calibrate`: crops of people -> scales.json and the INT8 graph in the bundle; with --budget the search too."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from qanet.bundle import Bundle, open_bundle, writable_copy
from qanet.calib.bundle import adopted_scales, calibrate, search_bundle, write_scales
from qanet.calib.ranges import DEFAULT_PERCENTILE, METHODS
from qanet.calib.scales import Scales
from qanet.calib.search import HEADER, METRICS, Found, rows
from qanet.commandline import command_parser, emit, note, output_folder, table
from qanet.errors import QanetError
from qanet.runtime.evaluate import open_accuracy


def _arguments() -> argparse.ArgumentParser:
    parser = command_parser("calibrate", "Find INT8 ranges on crops of people and write the INT8 graph.")
    add = parser.add_argument
    add("model", metavar="NAME.qanet")
    add("--data", metavar="DIR", help="data set folder, folder of images, or a video")
    add("--method", default="entropy", choices=sorted(METHODS), help="how to choose a range (default: entropy)")
    add(
        "--percentile",
        type=float,
        default=DEFAULT_PERCENTILE,
        metavar="P",
        help=f"per cent of values that --method percentile keeps (default: {DEFAULT_PERCENTILE:g})",
    )
    add("--crops", type=int, default=256, metavar="N", help="largest number of crops to use (default: 256)")
    add("--scales", metavar="FILE", help="take the ranges from this scales.json instead of --data")
    add("--output", type=output_folder, metavar="NAME.qanet", help="write a copy and leave the bundle as it is")
    search = parser.add_argument_group("search", "leave in float only the blocks that a given accuracy needs")
    add = search.add_argument
    add("--budget", type=float, metavar="DROP", help="run the search; largest drop of the metric, in points of 100")
    add("--metric", default="miou", choices=tuple(METRICS), help="accuracy to keep (default: miou)")
    add("--images", type=int, default=100, metavar="N", help="images of the validation split to measure on (100)")
    add("--threads", type=int, metavar="N", help="CPU threads of the search's inference")
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
    bundle = writable_copy(source, Path(args.output) if args.output else None)  # after everything that may be refused
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
    """The scales, and a note of where they come from."""
    if args.scales:
        return adopted_scales(bundle, args.scales), f"of {Path(args.scales).name}"
    from tqdm import tqdm

    with tqdm(total=args.crops, unit="crop", desc="calibrate", disable=args.json or None) as bar:

        def advance(done: int, expected: int) -> None:
            bar.total = expected
            bar.update()

        found = calibrate(
            bundle, args.data, method=args.method, percentile=args.percentile, crops=args.crops, progress=advance
        )
    cached = ", cached from an earlier run" if found.is_cached else ""
    return found.scales, f"by {found.scales.method} over {found.scales.crops} crops{cached}"


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
