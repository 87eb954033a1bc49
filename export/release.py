"""The shipped form of a bundle: FP32 graph, checkpoint, scales, known answers, model card and accuracies.

`python -m qanet.export.release WORKED.qanet --card CARD.md --output qanet/models/NAME.qanet`. Typed graphs and engines
are left out: `qanet build` makes them from what ships, for the machine at hand.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from qanet.bundle import Bundle, open_bundle
from qanet.commandline import CommandParser, note, run_module
from qanet.errors import QanetError
from qanet.labels import PERSON_BOX1
from qanet.runtime.answers.known import FILE as ANSWERS

KEPT = ("model.onnx", "model.safetensors", "scales.json", ANSWERS)
DETECTOR_KEPT = ("model.onnx", "scales.json", ANSWERS)  # without the checkpoint: it comes with every installation
CARD = "MODEL_CARD.md"


def release(worked: Bundle, card: Path, output: Path) -> Bundle:
    """Write the shipped form of a bundle, replacing a bundle at `output`.

    Raises:
        QanetError: a kept file is missing or changed, or a precision was not measured.
    """
    missing = [p for p in ("fp32", "fp16", "int8") if p not in worked.manifest["accuracy"]]
    if missing:
        raise QanetError(
            f"{worked.path}: the accuracy of {missing[0]} was not measured",
            expected="a card of all three precisions",
            next_command=f"qanet val {worked.path} --data DIR --precision {missing[0]} --save",
        )
    if not card.is_file():
        raise QanetError(f"no model card at {card}")
    manifest = json.loads(json.dumps(worked.manifest))
    manifest |= {"files": {}, "engines": [], "timings": [], "graphs": {"fp32": "model.onnx"}}
    kept = {name: worked.read(name) for name in (DETECTOR_KEPT if worked.labels == PERSON_BOX1 else KEPT)}
    text = card.read_bytes()
    if (output / "manifest.json").exists():
        shutil.rmtree(output)
    shipped = Bundle(output, manifest)
    for name, data in kept.items():
        shipped.add_file(name, data)
    shipped.add_file(CARD, text)
    shipped.save()
    return shipped


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = CommandParser(prog="python -m qanet.export.release", description=__doc__.split("\n")[0])
    parser.add_argument("worked", metavar="WORKED.qanet")
    parser.add_argument("--card", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path)
    args = parser.parse_args(argv)
    shipped = release(open_bundle(args.worked), args.card, args.output)
    size = sum(entry["bytes"] for entry in shipped.manifest["files"].values())
    note(f"wrote {shipped.path}, {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    run_module(main)
