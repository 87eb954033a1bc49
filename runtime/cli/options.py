"""What `qanet parse` takes on its command line."""

import argparse
import re

from qanet.commandline import command_parser
from qanet.runtime.backends.select import DEVICES
from qanet.runtime.cli.showing import add_show_options
from qanet.runtime.faces.options import add_face_options
from qanet.runtime.parser import TAILS
from qanet.runtime.video.decoders.choice import NAMES
from qanet.runtime.video.frames import MAX_PEOPLE

_EPILOG = """\
INPUT_URI    a video; an image; a folder of images; /dev/video0 or v4l2:///dev/video0; csi://0 (a Jetson's camera);
             rtsp://, http://, udp://, srt:// or rtmp:// streams; - (standard input, Motion-JPEG)
OUTPUT_URI   the overlay: .webm, .mp4 or .avi (.webm plays in every browser); a folder of PNGs; a picture, for an image;
             display:// (a window; q ends); rtsp:// (pushed by ffmpeg to a server such as MediaMTX); left out: none

Several streams share one engine, and their people its batches:
  qanet parse a.mp4 rtsp://camera/1 --output-dir out       out/a.webm, out/a.jsonl, out/camera-1.webm ...
  qanet parse --streams 2 a.mp4 b.mp4 a.webm b.webm        the first N addresses are inputs, then an output each
  qanet parse --streams 2 /dev/video0 csi://0 display://   a window each
  qanet parse --streams 8 a.mp4                            one input N times, to see what the machine can bear
"""


def arguments() -> argparse.ArgumentParser:
    """The parser of `qanet parse`."""
    parser = command_parser(
        "parse",
        "Parse the people of videos, images, cameras and streams.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", metavar="INPUT_URI", help="what to parse: see below")
    parser.add_argument("more", metavar="OUTPUT_URI", nargs="*", default=[], help="where the overlay goes: see below")
    parser.add_argument("--model", default="ccp13-lite0", help="bundle: a shipped name or a NAME.qanet folder")
    people = parser.add_mutually_exclusive_group()
    people.add_argument("--detector", metavar="NAME", help="a bundle or an ONNX file of a known form; person-lite0")
    people.add_argument("--boxes", metavar="JSON", help="boxes from a file instead of a detector")
    people.add_argument("--whole-image", action="store_true", help="one person who fills the image")
    add_face_options(parser)
    _add_places(parser)
    add_show_options(parser)
    parser.add_argument("--precision", default="auto", help="fp32, fp16, int8; auto: the fastest the bundle has")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--tail", default="kernel", choices=TAILS, help="labels at image or at crop resolution")
    parser.add_argument("--flip", action="store_true", help="average each crop with its mirror image")
    parser.add_argument("--scales", type=_numbers, default=(1.0,), metavar="1,1.1", help="average boxes of these sizes")
    parser.add_argument(
        "--detect-every",
        type=_cadence,
        metavar="K",
        help="detect on every K-th frame, or auto: seldom while nothing is new",
    )
    parser.add_argument("--no-carry", action="store_true", help="do not look for the last frame's people again")
    parser.add_argument("--smooth", action="store_true", help="hold labels of a video that flicker where nothing moves")
    parser.add_argument("--max-people", type=_count, default=MAX_PEOPLE, metavar="N", help="of a frame, best by score")
    parser.add_argument(
        "--max-width", type=_count, default=0, metavar="PX", help="shrink the overlay video to this width"
    )
    parser.add_argument("--threads", type=_count, help="CPU threads of the engine")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--progress", action="store_true", help="a progress bar even with --json")
    return parser


def _add_places(parser: argparse.ArgumentParser) -> None:
    """Where results go besides the overlay, how many streams there are, and how they are read."""
    parser.add_argument("--results", metavar="JSONL", help="a line of JSON a frame: boxes, scores, RLE of the parts")
    parser.add_argument("--labels", metavar="FOLDER", help="a PNG a frame whose pixels are class ids, with a palette")
    parser.add_argument("--streams", type=_streams, metavar="N", help="parse N inputs at once: see below")
    parser.add_argument("--output-dir", metavar="FOLDER", help="overlay and JSON lines of each input: see below")
    parser.add_argument(
        "--decoder",
        default="auto",
        choices=("auto", *NAMES),
        help="of videos; auto: the fastest of those that this machine has, measured on the first frames",
    )
    parser.add_argument("--input-size", type=_size, metavar="WxH", help="what a camera is asked for, such as 1280x720")
    parser.add_argument(
        "--input-rate",
        type=_rate,
        metavar="FPS",
        help="what a camera is asked for; or what standard input and folders have",
    )


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")
    return int(text)


def _streams(text: str) -> int:
    if (count := _count(text)) < 1:
        raise argparse.ArgumentTypeError("expected 1 or more, got 0")
    return count


def _cadence(text: str) -> int | str:
    return text if text == "auto" else _count(text)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, got {text!r}")
    return int(found[1]), int(found[2])


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1000:
        raise argparse.ArgumentTypeError(f"expected frames a second, got {text!r}")
    return rate


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers separated by commas, got {text!r}") from None
