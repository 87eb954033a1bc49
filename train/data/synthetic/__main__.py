"""`python -m qanet.train.data.synthetic`: a synthetic data set in an official layout."""

from collections.abc import Sequence
from pathlib import Path

from qanet.commandline import CommandParser, emit, run_module
from qanet.datasets.official import LAYOUTS
from qanet.labels import LABEL_SETS
from qanet.train.data.synthetic.make import SPLITS, Order, make


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = CommandParser(prog="python -m qanet.train.data.synthetic", description=__doc__, allow_abbrev=False)
    parser.add_argument("--people", required=True, metavar="CCP_DIR", help="photos/, labels/, train.txt, val.txt")
    parser.add_argument("--format", required=True, choices=tuple(LAYOUTS))
    parser.add_argument("--split", required=True, choices=SPLITS, help="train: people of train.txt; else of val.txt")
    parser.add_argument("--scenes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--labels", choices=tuple(LABEL_SETS), help="default: the format's own")
    parser.add_argument("--output", required=True, metavar="DIR", help="the data set's folder")
    parser.add_argument("--json", action="store_true", help="the manifest on stdout")
    args = parser.parse_args(argv)
    order = Order(Path(args.people), args.format, args.split, args.scenes, args.seed, Path(args.output), args.labels)
    from tqdm import tqdm

    with tqdm(total=args.scenes, unit="scene", desc="synthetic", disable=args.json or None) as bar:
        manifest = make(order, bar.update)
    emit(
        args.json,
        manifest,
        f"wrote {args.scenes} synthetic scenes of {len(manifest['photographs'])} photographs to {args.output}\n"
        f"next: qanet check {args.output} --format {args.format} --split {args.split} --labels {manifest['labels']}",
    )
    return 0


if __name__ == "__main__":
    run_module(main)
