"""`qanet inspect`: what a bundle is, whether its files are whole, and what its engines run on."""

from collections.abc import Sequence
from typing import Any

from qanet.bundle import Bundle, open_bundle
from qanet.cli.commandline import command_parser, emit, table


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = command_parser("inspect", "A bundle's manifest, checked against its files, and its engines' census.")
    parser.add_argument("model", metavar="NAME.qanet")
    args = parser.parse_args(argv)
    bundle = open_bundle(args.model)
    bundle.verify()
    emit(args.json, {"path": str(bundle.path), "files_verified": True, **bundle.manifest}, _text(bundle))
    return 0


def _text(bundle: Bundle) -> str:
    manifest = bundle.manifest
    height, width = bundle.input_hw
    recipe = manifest["made"].get("recipe", {})
    a, b, g = bundle.qam_weights
    parts = [
        f"{bundle.path}: {bundle.labels.name}, {bundle.labels.num_classes} classes, crops {height}x{width}, "
        f"recipe {recipe.get('name', 'unknown')}, QAM exponents box {a:g} IoU {b:g} pixel {g:g}",
        f"classes: {', '.join(bundle.labels.classes)}",
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
        rows = [
            (e["runtime"], e["version"], e["precision"], ", ".join(e["targets"]), _shares(e), e["census"]["reformats"])
            for e in bundle.engines
        ]
        parts.append(table(rows, ("runtime", "version", "precision", "runs on", "multiply-adds in", "reformats")))
    else:
        parts.append(f"no engines yet; next: qanet build {bundle.name}")
    return "\n\n".join(parts)


def _card(card: dict[str, Any]) -> tuple[str, ...]:
    def percent(key: str) -> str:
        return f"{100 * card[key]:.2f}" if card.get(key) is not None else "not measured"

    rank = card.get("rank_correlation_quality")
    where = f"{card.get('data')} {card.get('split') or ''} ({card.get('images')} images, {card.get('runtime')})"
    return percent("miou"), percent("pixel_accuracy"), f"{rank:.3f}" if rank is not None else "not measured", where


def _shares(engine: dict[str, Any]) -> str:
    shares = engine["census"]["multiply_add_shares"]
    return ", ".join(f"{name} {value:.0%}" for name, value in shares.items() if value >= 0.005)
