"""`qanet export`: a checkpoint becomes a bundle with one FP32 ONNX graph, checked against the network."""

import importlib.metadata
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qanet.bundle import SUFFIX, Bundle, create
from qanet.bundle.half_weights import with_half_weights
from qanet.commandline import command_parser, emit, note
from qanet.errors import QanetError
from qanet.labels import PERSON_BOX1
from qanet.quality import QAM_WEIGHTS
from qanet.runtime.answers.known import renew_answers
from qanet.runtime.answers.verdicts import TOLERANCES
from qanet.runtime.backends.onnxruntime import exact_outputs

if TYPE_CHECKING:
    from qanet.train.networks.parser import ParsingNetwork
    from qanet.train.recipes import Recipe

_OFFICIAL = (".pth", ".pt")
_VERSIONS = ("torch", "onnx", "onnxscript", "numpy")


def export_checkpoint(
    checkpoint: Path | str, output: Path | str, recipe_name: str | None = None, input_hw: tuple[int, int] | None = None
) -> Bundle:
    """Export a checkpoint into a new bundle folder, replacing graphs and engines of a bundle that exists there.

    Args:
        checkpoint: a .safetensors file of `qanet train`, or an official .pth, loaded strictly.
        output: folder of the bundle; the suffix .qanet is added where it is missing.
        recipe_name: checked against the checkpoint's own; an official one names none and needs it.
        input_hw: crop size (H, W) pixels, multiples of 32; None keeps the recipe's.
    Returns:
        The bundle, saved, with one FP32 graph that was checked against the network.
    Raises:
        QanetError: a broken checkpoint, a recipe that does not fit, a graph that departs from the network.
    """
    from qanet.export.graphs.network import check_parity, graph_of, to_onnx
    from qanet.train.weights import save_weights

    checkpoint, output = Path(checkpoint), Path(output)
    network, recipe = _network_of(checkpoint, recipe_name)
    size = input_hw or recipe.input_hw
    if any(side < 64 or side % 32 for side in size):
        raise QanetError("bad input size", expected="multiples of 32 from 64 on", got=f"{size[0]}x{size[1]}")
    output = output if output.name.endswith(SUFFIX) else output.with_name(output.name + SUFFIX)
    if output.exists() and not (output / "manifest.json").exists() and any(output.iterdir()):
        raise QanetError(f"{output} exists and is not a bundle", next_command="choose another --output")
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
    output.mkdir(parents=True, exist_ok=True)
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
        weights = output / ".model.safetensors.partial"
        try:
            save_weights(weights, network, recipe, half=False)
            bundle.add_file("model.safetensors", weights.read_bytes())
        finally:
            weights.unlink(missing_ok=True)
    renew_answers(bundle, {"fp32": bundle.graph("fp32")}, exact_outputs, TOLERANCES)
    bundle.save()
    return bundle


def _network_of(checkpoint: Path, recipe_name: str | None) -> tuple["ParsingNetwork", "Recipe"]:
    from qanet.train.official import fitting_recipes, load_official, read_official
    from qanet.train.recipes import recipe
    from qanet.train.weights import load_weights

    if checkpoint.suffix not in _OFFICIAL:
        network, its_recipe = load_weights(checkpoint)
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
    try:
        height, width = (int(v) for v in text.lower().split("x"))
    except ValueError as error:
        raise QanetError("bad --input-size", expected="HxW, like 384x288", got=text) from error
    return height, width


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = command_parser("export", "Checkpoint to a bundle with one FP32 ONNX graph, QAM inside.")
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a .safetensors file of qanet train, or an official .pth"
    )
    parser.add_argument("--output", required=True, metavar="NAME.qanet")
    parser.add_argument(
        "--recipe", metavar="NAME", help="refuse a checkpoint of another recipe; an official one names none"
    )
    parser.add_argument("--input-size", metavar="HxW", help="crop size; default: the recipe's")
    args = parser.parse_args(argv)
    size = _size(args.input_size) if args.input_size else None
    bundle = export_checkpoint(Path(args.checkpoint), Path(args.output), args.recipe, size)
    parity = bundle.manifest["made"]["parity_with_torch"]
    note("the graph equals the network: " + ", ".join(f"{k} {v:.1g}" for k, v in parity.items()))
    document = {"bundle": str(bundle.path), "graph": "model.onnx", "parity_with_torch": parity}
    megabytes = bundle.manifest["files"]["model.onnx"]["bytes"] / 1e6
    emit(args.json, document, f"wrote {bundle.path} (FP32 graph, {megabytes:.1f} MB)\nnext: qanet build {bundle.path}")
    return 0
