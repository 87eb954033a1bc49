"""`qanet calibrate`: crops of people -> scales.json and the INT8 graph, both into the bundle."""

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qanet.bundle import Bundle, open_bundle, writable_copy
from qanet.calib.calibrate import calibrate
from qanet.calib.quantize import write_int8
from qanet.calib.ranges import METHODS
from qanet.calib.scales import Scales, load_scales
from qanet.cli.commandline import command_parser, emit, note
from qanet.errors import QanetError


def quantize_bundle(bundle: Bundle) -> None:
    """Write the INT8 graph of a bundle from its FP32 graph and scales.json; the manifest is not saved.

    Raises:
        QanetError: no scales yet, or scales that do not fit the graph.
    """
    if "scales.json" not in bundle.manifest["files"]:
        raise QanetError(
            f"{bundle.path} has no scales.json, so there is no INT8", expected="a calibrated bundle", got="FP32 only",
            next_command=f"qanet calibrate {bundle.path} --data DIR",
        )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        model, scales, int8 = (Path(folder) / name for name in ("model.onnx", "scales.json", "int8.onnx"))
        model.write_bytes(bundle.read("model.onnx"))
        scales.write_bytes(bundle.read("scales.json"))
        write_int8(model, load_scales(scales, model), int8)
        bundle.add_file("model.int8.onnx", int8.read_bytes())
    bundle.manifest["graphs"]["int8"] = "model.int8.onnx"


def calibrate_bundle(bundle: Bundle, crops: Any, method: str, progress: Callable[[int], None] | None = None) -> Scales:
    """Calibrate on an iterable of crop batches with a `digest`; writes scales and graph, drops old INT8 engines."""
    with tempfile.TemporaryDirectory() as folder:
        model, scales_path = Path(folder) / "model.onnx", Path(folder) / "scales.json"
        model.write_bytes(bundle.read("model.onnx"))
        scales = calibrate(model, crops, method, progress=progress)
        scales = dataclasses.replace(scales, data_sha256=crops.digest)
        scales.save(scales_path)
        bundle.add_file("scales.json", scales_path.read_bytes())
    quantize_bundle(bundle)
    bundle.manifest["engines"] = [e for e in bundle.engines if e["precision"] != "int8"]
    bundle.manifest["accuracy"].pop("int8", None)
    bundle.save()
    return scales


def main(argv: Sequence[str], *, open_crops: Callable[..., Any]) -> int:
    """Entry point; `open_crops` is qanet.runtime.crops.people_crops, handed over by the command table."""
    parser = command_parser("calibrate", "Find INT8 ranges on crops of people and write the INT8 graph.")
    parser.add_argument("model", metavar="NAME.qanet")
    parser.add_argument("--data", required=True, metavar="DIR", help="data set folder, folder of images, or a video")
    parser.add_argument("--method", default="entropy", choices=sorted(METHODS))
    parser.add_argument("--crops", type=int, default=256, metavar="N", help="at most so many crops (256)")
    parser.add_argument("--output", metavar="NAME.qanet", help="write a copy instead of the bundle itself")
    args = parser.parse_args(argv)
    if args.crops < 1:
        raise QanetError("bad --crops", expected="1 or more", got=args.crops)
    source = open_bundle(args.model)
    crops = open_crops(Path(args.data), source.labels, source.input_hw, args.crops)
    bundle = writable_copy(source, Path(args.output) if args.output else None)
    from tqdm import tqdm

    with tqdm(total=crops.expected, unit="crop", desc="calibrate", disable=args.json or None) as bar:
        scales = calibrate_bundle(bundle, crops, args.method, lambda _: bar.update() and None)
    note(f"scales by {args.method} over {scales.crops} crops")
    document = {"bundle": str(bundle.path), "method": args.method, "crops": scales.crops, "data_sha256": crops.digest}
    written = f"wrote scales.json and model.int8.onnx into {bundle.path}"
    emit(args.json, document, f"{written}\nnext: qanet build {bundle.path}")
    return 0
