"""`qanet inspect`: contents and size of a bundle, a checkpoint or a recipe, and the devices of its engines."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qanet.bundle import SUFFIX, Bundle, open_bundle
from qanet.commandline import command_parser, emit, table
from qanet.errors import QanetError

_VIEWS = {"person": "crops of people", "whole": "whole pictures"}
_CHECKPOINTS = (".safetensors", ".pt", ".pth")


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    from qanet.export.graphs.source import graph_size

    parser = command_parser(
        "inspect", "A bundle's manifest, checked against its files, and its engines' census; or the size of a network."
    )
    parser.add_argument(
        "model", metavar="NAME", help="a bundle, a checkpoint (.safetensors, .pt, an official .pth) or a recipe"
    )
    args = parser.parse_args(argv)
    bundle = _bundle(args.model)
    if bundle is None:
        from qanet.train.describe import describe_network

        document = describe_network(args.model)
        emit(args.json, document, _network_text(document))
        return 0
    bundle.verify()
    size = graph_size(bundle.graph("fp32"))
    emit(args.json, {"path": str(bundle.path), "files_verified": True, **size, **bundle.manifest}, _text(bundle, size))
    return 0


def _bundle(name: str) -> Bundle | None:
    """The bundle of that name; None where it can only be a checkpoint or a recipe. A bundle takes precedence."""
    path = Path(name)
    if path.is_file():
        return None
    try:
        return open_bundle(name)
    except QanetError:
        if path.exists() or name.endswith(SUFFIX) or path.suffix in _CHECKPOINTS or len(path.parts) != 1:
            raise
        return None


def _network_text(document: dict[str, Any]) -> str:
    recipe = document["recipe"]
    height, width = recipe["input_hw"]
    lines = [f"recipe {recipe['name']}: {recipe['backbone']}, {recipe['labels']}, crops {height}x{width}"]
    if "fits" in document:
        lines = [f"{document['checkpoint']}: the tensors of {' or '.join(document['fits'])}"]
    elif "checkpoint" in document:
        lines = [f"{document['checkpoint']}: {lines[0]}"]
        if document.get("epoch") is not None:
            lines.append(f"a run's state after epoch {document['epoch']} of {recipe['epochs']}")
    rows = [
        (part, f"{size['parameters'] / 1e6:.2f}", f"{size['multiply_adds'] / 1e9:.2f}")
        for part, size in document["parts"].items()
    ]
    header = ("part", "parameters, million", f"multiply-adds of a {height}x{width} crop, billion")
    return "\n\n".join(["\n".join(lines), table(rows, header)])


def _text(bundle: Bundle, size: dict[str, int]) -> str:
    manifest = bundle.manifest
    height, width = bundle.input_hw
    recipe = manifest["made"].get("recipe", {})
    a, b, g = bundle.qam_weights
    parts = [
        f"{bundle.path}: {bundle.labels.name}, {bundle.labels.num_classes} classes, crops {height}x{width}, "
        f"recipe {recipe.get('name', 'unknown')}, QAM exponents box {a:g} IoU {b:g} pixel {g:g}",
        f"{size['parameters'] / 1e6:.2f} million parameters with batch norm folded in, "
        f"{size['multiply_adds'] / 1e9:.2f} billion multiply-adds per crop",
        f"classes: {', '.join(bundle.labels.classes)}",
        f"Q is made of {bundle.quality_of}; trained on {_VIEWS[bundle.view]}",
        table(
            [(n, f"{f['bytes'] / 2**20:.2f}", f["sha256"][:16], "whole") for n, f in manifest["files"].items()],
            ("file", "MiB", "sha256", "check"),
        ),
    ]
    if manifest["accuracy"]:
        rows = [(p, *_card(card)) for p, card in manifest["accuracy"].items()]
        header = ("precision", "mIoU %", "pixel accuracy %", "rank corr. of Q", "measured on")
        parts.append(table(rows, header))
    if bundle.engines:
        engines = [
            (
                e["runtime"],
                e["version"],
                e["precision"],
                e.get("weights", ""),
                ", ".join(e["targets"]),
                _shares(e),
                e["census"]["reformats"],
            )
            for e in bundle.engines
        ]
        columns = ("runtime", "version", "precision", "weights", "runs on", "multiply-adds in", "reformats")
        parts.append(table(engines, columns))
    else:
        parts.append(f"no engines yet; next: qanet build {bundle.name}")
    parts.append(_answers(manifest["answers"]))
    for record in manifest["timings"]:
        times = ", ".join(f"{graph} {value:g} ms" for graph, value in record["least_ms"].items())
        parts.append(f"one crop in turns, {record['runtime']} {record['version']} on {record['device']}: {times}")
    return "\n\n".join(parts)


def _answers(record: dict[str, Any]) -> str:
    if not record:
        return "no known answers: they are made from the FP32 graph when an engine is first loaded, or by qanet build"
    return f"known answers of {', '.join(record['of'])} in {record['file']}: an engine must reproduce them before use"


def _card(card: dict[str, Any]) -> tuple[str, ...]:
    def percent(key: str) -> str:
        return f"{100 * card[key]:.2f}" if card.get(key) is not None else "not measured"

    rank = card.get("rank_correlation_quality")
    where = f"{card.get('data')} {card.get('split') or ''} ({card.get('images')} images, {card.get('runtime')})"
    return percent("miou"), percent("pixel_accuracy"), f"{rank:.3f}" if rank is not None else "not measured", where


def _shares(engine: dict[str, Any]) -> str:
    shares = engine["census"]["multiply_add_shares"]
    return ", ".join(f"{name} {value:.0%}" for name, value in shares.items() if value >= 0.005)
