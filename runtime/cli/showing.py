"""The options of `qanet parse` about what is shown and to whom: privacy, parts, the overlay, the live page."""

import argparse

from qanet.errors import QanetError
from qanet.labels import LabelSet
from qanet.runtime.serve.address import Address, parse_address
from qanet.runtime.serve.live import LivePage
from qanet.runtime.video.frames import MOVING
from qanet.runtime.video.privacy import BLURS, Privacy
from qanet.runtime.video.sinks.base import Sink
from qanet.runtime.video.sources.base import Source
from qanet.runtime.video.view import View, part_ids


def add_show_options(parser: argparse.ArgumentParser) -> None:
    """--blur, --only, --keep-background and --serve."""
    parser.add_argument(
        "--blur",
        choices=BLURS,
        help="hide faces, or whole people, in all pictures, beyond recognition; a head whose face is not seen is hidden"
        " too; JSON stays as it is; every frame is detected on unless --detect-every says otherwise",
    )
    parser.add_argument(
        "--only",
        type=_names,
        default=(),
        metavar="PART,PART",
        help="show and write these parts alone, by the names of the model's label set",
    )
    parser.add_argument(
        "--keep-background",
        action="store_true",
        help="draw on people only: no boxes, scores or legend, and no pixel of the background is painted",
    )
    parser.add_argument(
        "--serve",
        type=_address,
        metavar="HOST:PORT",
        help="a live page with the overlay, rates and people, such as 127.0.0.1:8080; :8080 shows it to the network",
    )


def live_page(args: argparse.Namespace, sources: list[Source]) -> LivePage | None:
    """The live page that the arguments ask for."""
    if args.serve is None:
        return None
    if any(source.kind == "image" for source in sources):
        raise QanetError(
            "a live page of one image would be gone at once",
            expected="a video, a folder or a live source",
            got="an image",
            next_command="qanet parse INPUT.jpg OUTPUT.png",
        )
    return LivePage(args.serve, args.max_width)


def viewed(args: argparse.Namespace, sinks: list[Sink], labels: LabelSet, source: Source) -> list[Sink]:
    """The sinks of a stream behind what the arguments hide from them.

    Raises:
        QanetError: --only names a part that the label set has not.
    """
    only = part_ids(args.only, labels)
    if not (args.blur or only or args.keep_background):
        return sinks
    privacy = Privacy(args.blur, source.kind in MOVING) if args.blur else None
    return [View(sinks, privacy, only, args.keep_background)]


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"expected parts separated by commas, got {text!r}")
    return names


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except QanetError as error:
        raise argparse.ArgumentTypeError(error.line()) from None
