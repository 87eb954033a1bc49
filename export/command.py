"""`qanet export`: a checkpoint becomes a bundle with one FP32 ONNX graph, checked against the network."""

import dataclasses
import importlib.metadata
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

from qanet.bundle import SUFFIX, Bundle, create
from qanet.cli.commandline import command_parser, emit, note
from qanet.errors import QanetError
from qanet.quality import PIXEL_SCORE_THRESHOLD, QAM_WEIGHTS

_VERSIONS = ("torch", "onnx", "onnxscript", "numpy")


def bundle_of_checkpoint(
    checkpoint: Path, output: Path, recipe_name: str | None = None, input_hw: tuple[int, int] | None = None
) -> Bundle:
    """Export a .safetensors checkpoint into a new bundle folder (replacing its graphs and engines if it exists).

    Args:
        recipe_name: checked against the checkpoint's own.
        input_hw: crop size (H, W) pixels, multiples of 32; None keeps the recipe's.
    Raises:
        QanetError: a broken checkpoint, a recipe that does not fit, a graph that departs from the network.
    """
    from qanet.export.graph import export_onnx
    from qanet.export.parity import check_parity
    from qanet.train.checkpoint import load_weights

    network, recipe = load_weights(checkpoint)
    if recipe_name is not None and recipe_name != recipe.name:
        raise QanetError(f"{checkpoint} is of another recipe", expected=recipe_name, got=recipe.name)
    size = input_hw or recipe.input_hw
    if any(side < 64 or side % 32 for side in size):
        raise QanetError("bad input size", expected="multiples of 32 from 64 on", got=f"{size[0]}x{size[1]}")
    output = output if output.name.endswith(SUFFIX) else output.with_name(output.name + SUFFIX)
    if output.exists() and not (output / "manifest.json").exists() and any(output.iterdir()):
        raise QanetError(f"{output} exists and is not a bundle", next_command="choose another --output")
    output.mkdir(parents=True, exist_ok=True)
    graph = output / ".model.onnx.partial"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own remarks about its internals
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            export_onnx(network, size, graph)
        parity = check_parity(network, size, graph)
        data = graph.read_bytes()
    finally:
        graph.unlink(missing_ok=True)
    made = {
        "recipe": dataclasses.asdict(recipe), "parity_with_torch": {k: float(f"{v:.3g}") for k, v in parity.items()},
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONS},
    }  # fmt: skip
    bundle = create(
        output, labels=recipe.labels, input_hw=list(size), qam_weights=list(QAM_WEIGHTS),
        pixel_score_threshold=PIXEL_SCORE_THRESHOLD, graphs={"fp32": "model.onnx"}, made=made,
    )  # fmt: skip
    bundle.add_file("model.onnx", data)
    bundle.add_file("model.safetensors", checkpoint.read_bytes())
    bundle.save()
    return bundle


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(v) for v in text.lower().split("x"))
    except ValueError as error:
        raise QanetError("bad --input-size", expected="HxW, like 384x288", got=text) from error
    return height, width


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = command_parser("export", "Checkpoint to a bundle with one FP32 ONNX graph, QAM inside.")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file of qanet train")
    parser.add_argument("--output", required=True, metavar="NAME.qanet")
    parser.add_argument("--recipe", metavar="NAME", help="refuse a checkpoint of another recipe")
    parser.add_argument("--input-size", metavar="HxW", help="crop size; default: the recipe's")
    args = parser.parse_args(argv)
    size = _size(args.input_size) if args.input_size else None
    bundle = bundle_of_checkpoint(Path(args.checkpoint), Path(args.output), args.recipe, size)
    parity = bundle.manifest["made"]["parity_with_torch"]
    note("the graph equals the network: " + ", ".join(f"{k} {v:.1g}" for k, v in parity.items()))
    document = {"bundle": str(bundle.path), "graph": "model.onnx", "parity_with_torch": parity}
    megabytes = bundle.manifest["files"]["model.onnx"]["bytes"] / 1e6
    emit(args.json, document, f"wrote {bundle.path} (FP32 graph, {megabytes:.1f} MB)\nnext: qanet build {bundle.path}")
    return 0
