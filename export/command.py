"""`qanet export`: a checkpoint, or a network of one's own, becomes a bundle with one FP32 ONNX graph."""

import importlib.metadata
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qanet.bundle import VIEWS, Bundle, create, new_folder
from qanet.bundle.half_weights import with_half_weights
from qanet.commandline import BadValue, CommandParser, command_parser, emit, note, numbers, output_folder
from qanet.errors import QanetError
from qanet.labels import PERSON_BOX1, LabelSet, label_set
from qanet.quality import QAM_WEIGHTS
from qanet.runtime.answers.known import renew_answers
from qanet.runtime.answers.verdicts import TOLERANCES
from qanet.runtime.backends.onnxruntime import exact_outputs
from qanet.scratch import scratch_folder

if TYPE_CHECKING:
    from qanet.train.networks.parser import ParsingNetwork
    from qanet.train.recipes import Recipe

COLOURS, LAYOUTS = ("rgb", "bgr"), ("NCHW", "NHWC")
_OFFICIAL = (".pth", ".pt")
_VERSIONS = ("torch", "onnx", "onnxscript", "numpy")


def export_checkpoint(
    checkpoint: Path | str,
    output: Path | str,
    recipe_name: str | None = None,
    input_hw: tuple[int, int] | None = None,
    labels: LabelSet | None = None,
) -> Bundle:
    """Export a checkpoint into a new bundle folder, replacing graphs and engines of a bundle that exists there.

    Args:
        checkpoint: a .safetensors file of `qanet train`, or an official .pth, loaded strictly.
        output: folder of the bundle; the suffix .qanet is added where it is missing.
        recipe_name: checked against the checkpoint's own; an official one names none and needs it.
        input_hw: crop size (H, W) pixels, multiples of 32; None keeps the recipe's.
        labels: the classes, for a checkpoint that only names its label set.
    Returns:
        The bundle, saved, with one FP32 graph that was checked against the network.
    Raises:
        QanetError: a broken checkpoint, a recipe that does not fit, a graph that departs from the network.
    """
    from qanet.export.graphs.network import check_parity, graph_of, to_onnx
    from qanet.train.weights import save_weights

    checkpoint, output = Path(checkpoint), new_folder(output)
    network, recipe = _network_of(checkpoint, recipe_name, labels)
    size = input_hw or recipe.input_hw
    if any(side < 64 or side % 32 for side in size):
        raise QanetError("bad input size", expected="multiples of 32 from 64 on", got=f"{size[0]}x{size[1]}")
    module, inputs, outputs = graph_of(network, recipe.labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own remarks about its internals
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        graph = to_onnx(module, outputs, size, inputs)
    halved = recipe.labels == PERSON_BOX1.name  # a detector comes with every installation, so it is small
    if halved:
        graph = with_half_weights(graph)
    parity = check_parity(module, outputs, size, graph, inputs=inputs)
    made: dict[str, Any] = {
        "recipe": recipe.to_document(),
        "parity_with_torch": {k: float(f"{v:.3g}") for k, v in parity.items()},
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONS},
    }
    if halved:
        made["weights"] = "fp16"
    bundle = create(
        output,
        labels=recipe.labels,
        label_set=recipe.label_set.to_document(),
        input_hw=list(size),
        qam_weights=list(QAM_WEIGHTS),
        pixel_score_threshold=module.threshold,
        graphs={"fp32": "model.onnx"},
        made=made,
    )
    bundle.add_file("model.onnx", graph)
    if checkpoint.suffix not in _OFFICIAL:
        bundle.add_file("model.safetensors", checkpoint.read_bytes())
    else:  # FP32: a bundle of an official network holds the official numbers
        with scratch_folder() as folder:
            save_weights(folder / "model.safetensors", network, recipe, half=False)
            bundle.add_file("model.safetensors", (folder / "model.safetensors").read_bytes())
    renew_answers(bundle, {"fp32": bundle.graph("fp32")}, exact_outputs, TOLERANCES)
    bundle.save()
    return bundle


def _network_of(
    checkpoint: Path, recipe_name: str | None, labels: LabelSet | None
) -> tuple["ParsingNetwork", "Recipe"]:
    from qanet.train.official import fitting_recipes, load_official, read_official
    from qanet.train.recipes import recipe
    from qanet.train.weights import load_weights

    if checkpoint.suffix not in _OFFICIAL:
        network, its_recipe = load_weights(checkpoint, labels)
        if recipe_name is not None and recipe_name != its_recipe.name:
            raise QanetError(f"{checkpoint} is of another recipe", expected=recipe_name, got=its_recipe.name)
        return network, its_recipe
    if recipe_name is None:
        fitting = fitting_recipes(read_official(checkpoint))
        raise QanetError(
            f"{checkpoint} names no recipe",
            expected="--recipe NAME with an official checkpoint",
            next_command=f"add --recipe {' or '.join(fitting)}" if fitting else "none has its tensors",
        )
    chosen = recipe(recipe_name)
    return load_official(checkpoint, chosen), chosen


def _size(text: str) -> tuple[int, int]:
    """argparse type: HxW."""
    try:
        height, width = (int(v) for v in text.lower().split("x"))
    except ValueError as error:
        raise BadValue("HxW, like 384x288", text) from error
    return height, width


def _arguments() -> CommandParser:
    parser = command_parser("export", "Checkpoint, or a segmenter of your own, to a bundle with one FP32 ONNX graph.")
    add = parser.add_argument
    add(
        "checkpoint",
        metavar="NETWORK",
        help="a .safetensors file of qanet train, an official .pth, or the .onnx file of any segmenter",
    )
    add("--output", required=True, type=output_folder, metavar="NAME.qanet")
    add("--recipe", metavar="NAME", help="refuse a checkpoint of another recipe; an official one names none")
    add("--input-size", type=_size, metavar="HxW", help="size of the pictures; default: the recipe's, or the file's")
    add(
        "--labels",
        metavar="NAME|FILE",
        help="label set of an .onnx file, or of a checkpoint that does not hold its own",
    )
    group = parser.add_argument_group("segmenters of your own", "what an .onnx file does not say; see your-network.md")
    add = group.add_argument
    add("--mean", type=numbers(3), metavar="R,G,B", help="normalisation: the network takes (value - mean) / std")
    add("--std", type=numbers(3), metavar="R,G,B")
    add("--range", type=float, choices=(1, 255), help="values that --mean is of: 0..1 or 0..255 (default: by its size)")
    add("--colours", default="rgb", choices=COLOURS, help="order of the network's channels (default: rgb)")
    add("--layout", choices=LAYOUTS, help="of the input (default: by its shape)")
    add("--logits", metavar="TENSOR", help="the tensor of the logits (default: before the last softmax or resize)")
    add("--iou", metavar="TENSOR", help="the tensor of a predicted IoU (N,), where there is one")
    add("--stride", type=int, metavar="N", help="refuse a file whose logits have another stride")
    add("--view", default="person", choices=VIEWS, help="trained on crops of people, or on whole pictures (person)")
    return parser


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    args = _arguments().parse_args(argv)
    labels = label_set(args.labels) if args.labels else None
    if Path(args.checkpoint).suffix == ".onnx":
        from qanet.export.foreign import export_onnx

        if labels is None:
            raise QanetError(f"{args.checkpoint} has no class names", expected="--labels NAME|FILE.json", got="none")
        bundle = export_onnx(
            args.checkpoint,
            args.output,
            labels,
            input_hw=args.input_size,
            mean=args.mean,
            std=args.std,
            value_range=args.range,
            colours=args.colours,
            layout=args.layout,
            logits=args.logits,
            iou=args.iou,
            stride=args.stride,
            view=args.view,
            report=note,
        )
    else:
        bundle = export_checkpoint(args.checkpoint, args.output, args.recipe, args.input_size, labels)
        parity = bundle.manifest["made"]["parity_with_torch"]
        note("the graph equals the network: " + ", ".join(f"{k} {v:.1g}" for k, v in parity.items()))
    made = bundle.manifest["made"]
    document = {"bundle": str(bundle.path), "graph": "model.onnx", "labels": bundle.labels.name, "view": bundle.view}
    document |= {key: made[key] for key in ("parity_with_torch", "network") if key in made}
    megabytes = bundle.manifest["files"]["model.onnx"]["bytes"] / 1e6
    emit(args.json, document, f"wrote {bundle.path} (FP32 graph, {megabytes:.1f} MB)\nnext: qanet build {bundle.path}")
    return 0
