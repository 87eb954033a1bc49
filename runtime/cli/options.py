"""The command line of `qanet parse`: every option, and how its text becomes a value."""

import argparse
import re

from qanet.commandline import command_parser, fraction, output_file, output_folder
from qanet.errors import QanetError
from qanet.runtime.backends.select import DEVICES
from qanet.runtime.faces.options import add_face_options
from qanet.runtime.parser import TAILS
from qanet.runtime.serve.address import Address, parse_address
from qanet.runtime.video.decoders import NAMES
from qanet.runtime.video.privacy import BLURS
from qanet.runtime.video.stream import MAX_PEOPLE

_EPILOG = """\
INPUT_URI    a video file; an image; a folder of images; /dev/video0 or v4l2:///dev/video0; csi://0 (camera of a
             Jetson); a rtsp://, http://, udp://, srt:// or rtmp:// stream; - (a video on standard input)
OUTPUT_URI   the overlay: .mp4 (H.264), .mkv (H.264), .webm (VP9) or .avi; a folder of PNGs; a picture, for an image;
             display:// (a window; q quits); rtsp:// (H.264, pushed to a server such as MediaMTX); default: no overlay

Several streams share one engine; people of different streams share its batches:
  qanet parse a.mp4 rtsp://camera/1 --output-dir out       out/a.mp4, out/a.jsonl, out/camera-1.mp4 ...
  qanet parse --streams 2 a.mp4 b.mp4 a.webm b.webm        N inputs, then one output per input
  qanet parse --streams 2 /dev/video0 csi://0 display://   one window per input
  qanet parse --streams 8 a.mp4                            one input N times, to measure the load
"""


def arguments() -> argparse.ArgumentParser:
    """The parser of `qanet parse`."""
    parser = command_parser(
        "parse",
        "Parse the people of videos, images, cameras and streams.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", metavar="INPUT_URI", help="what to parse, see below")
    parser.add_argument("more", metavar="OUTPUT_URI", nargs="*", default=[], help="where the overlay goes, see below")
    parser.add_argument(
        "--model",
        default="ccp13-lite0",
        help="fast, balanced (default) or accurate, the name of a shipped bundle, or a NAME.qanet folder",
    )
    parser.add_argument(
        "--target-fps",
        type=_rate,
        metavar="FPS",
        help="take the most accurate of fast, balanced and accurate that parses so many frames a second of the first "
        "input, measured on this machine before the run; without --model",
    )
    people = parser.add_mutually_exclusive_group()
    people.add_argument(
        "--detector",
        metavar="NAME",
        help="person detector: a bundle, or an ONNX file (YOLOX, Ultralytics, RT-DETR, torchvision); "
        "default: person-lite0",
    )
    people.add_argument("--boxes", metavar="JSON", help="read the boxes from a file, without a detector")
    people.add_argument("--whole-image", action="store_true", help="one person who fills the image")
    add_face_options(parser)
    _add_io_options(parser)
    _add_overlay_options(parser)
    parser.add_argument(
        "--precision", default="auto", help="fp32, fp16, int8, or auto: the fastest precision of the bundle"
    )
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument(
        "--tail",
        default="kernel",
        choices=TAILS,
        help="kernel: labels at image resolution; graph: labels at crop resolution, computed inside the network",
    )
    parser.add_argument("--flip", action="store_true", help="average the result of each crop and of its mirror image")
    parser.add_argument(
        "--scales", type=_numbers, default=(1.0,), metavar="1,1.1", help="average over boxes scaled by these factors"
    )
    parser.add_argument(
        "--detect-every",
        type=_cadence,
        metavar="K",
        help="run the detector on every K-th frame; auto (default): less often while no person appears or disappears",
    )
    parser.add_argument("--no-carry", action="store_true", help="do not follow people between detections")
    parser.add_argument("--smooth", action="store_true", help="reduce flicker of a video's labels where nothing moves")
    parser.add_argument(
        "--max-people", type=_count, default=MAX_PEOPLE, metavar="N", help="parse at most N people per frame"
    )
    parser.add_argument(
        "--min-quality",
        type=fraction,
        default=0.0,
        metavar="M",
        help="draw and write only people of this quality or more, such as 0.5: of their expected mean IoU if the model "
        "has a quality map, else of Q",
    )
    parser.add_argument("--max-width", type=_count, default=0, metavar="PX", help="largest width of the overlay video")
    parser.add_argument("--threads", type=_count, help="CPU threads of the engine")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--progress", action="store_true", help="a progress bar even with --json")
    return parser


def _add_io_options(parser: argparse.ArgumentParser) -> None:
    """Other outputs than the overlay, the number of streams, and how inputs are read."""
    parser.add_argument(
        "--results",
        type=output_file,
        metavar="JSONL",
        help="one JSON line per frame: time, boxes, scores, RLE of parts; - is standard output",
    )
    parser.add_argument(
        "--labels", type=output_folder, metavar="FOLDER", help="one PNG per frame whose pixels are class ids"
    )
    parser.add_argument("--streams", type=_streams, metavar="N", help="parse N inputs at once, see below")
    parser.add_argument(
        "--output-dir", type=output_folder, metavar="FOLDER", help="folder for overlay and JSON lines of every input"
    )
    parser.add_argument(
        "--decoder",
        default="auto",
        choices=("auto", *NAMES),
        help="decoder of video files; auto: the fastest one on this machine, measured on the first frames",
    )
    parser.add_argument("--input-size", type=_size, metavar="WxH", help="camera resolution, such as 1280x720")
    parser.add_argument(
        "--input-rate", type=_rate, metavar="FPS", help="frame rate of a camera, a folder or standard input"
    )


def _add_overlay_options(parser: argparse.ArgumentParser) -> None:
    """--blur, --only, --keep-background and --serve."""
    parser.add_argument(
        "--blur",
        choices=BLURS,
        help="hide faces or whole people in all pictures; a head without a visible face is hidden too; JSON lines stay"
        " as they are; the detector runs on every frame unless --detect-every is given",
    )
    parser.add_argument(
        "--only",
        type=_names,
        default=(),
        metavar="PART,PART",
        help="draw and write only these parts, named as in the label set of the model",
    )
    parser.add_argument(
        "--keep-background",
        action="store_true",
        help="draw on people only: no boxes, scores or legend, and the background stays unchanged",
    )
    parser.add_argument(
        "--serve",
        type=_address,
        metavar="HOST:PORT",
        help="live page with the overlay, rates and people, such as 127.0.0.1:8080; :8080 opens it to the network",
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
        raise argparse.ArgumentTypeError(f"expected frames per second, got {text!r}")
    return rate


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers separated by commas, got {text!r}") from None


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
