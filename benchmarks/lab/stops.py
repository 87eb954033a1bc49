"""Commands that are killed or stopped at a random moment: is every output whole, and is anything left by the next run?

    python -m qanet.benchmarks.lab.stops --stops 200

It draws a clip and a data set, and trains a small network on it. Then each command is ended several times by SIGKILL,
SIGTERM or SIGINT, and runs to its end once. After each stop every file under its final name is read. After the whole
run no temporary file may be there. Exit code 1 when a promise is broken.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from qanet.bundle import open_bundle
from qanet.commandline import command_parser, emit, note, output_folder, positive_int, run_module, table
from qanet.errors import QanetError
from qanet.images import read_image
from qanet.runtime.video.sources import VideoFile

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_EARLIEST_S = 0.3
_MARGIN = 1.1  # a stop may come after the end
_SLOWEST_S = 300
_RUNS = {"train": "run", "qat": "qat"}
_SMALL = ("input_hw=64x64", "width=16", "iou_hidden=16", "backbone=lite0-slim", "pretrained=false", "batch_size=4")
_RAW_IDS = ((slice(10, 35), 19), (slice(35, 50), 46), (slice(50, 90), 31))  # hair, suit and pants of CCP's 59


@dataclass
class Outcome:
    """What the stops of one command showed."""

    name: str
    seconds: float
    codes: dict[str, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


def commands(folder: Path) -> dict[str, list[str]]:
    """The command lines, in an order in which each finds what it needs."""
    run, bundle, data = str(folder / "run"), str(folder / "small.qanet"), str(folder / "ccp")
    clip, new = str(folder / "clip.avi"), str(folder / "new.qanet")
    whole = ["--whole-image", "--threads", "1"]
    return {
        "train": ["train", "ccp13-lite0", *_SMALL, "epochs=2", "--data", data, "--output", run, "--device", "cpu"],
        "export": ["export", f"{run}/model.safetensors", "--output", bundle],
        "calibrate": ["calibrate", bundle, "--data", data, "--method", "minmax"],
        "build": ["build", bundle, "--output", new, "--runtime", "openvino", "--precision", "fp32,int8"],
        "qat": ["qat", bundle, "--data", data, "--epochs", "1", "--output", str(folder / "qat"), "--device", "cpu"],
        "val": ["val", bundle, "--data", data, "--save", "--precision", "fp32"],
        "parse": ["parse", clip, str(folder / "o.mp4"), "--model", bundle, "--results", str(folder / "o.jsonl"), *whole]
        + ["--labels", str(folder / "labels")],
        "benchmark": ["benchmark", bundle, "--input", clip, "--output", str(folder / "report"), "--duration", "1"]
        + [*whole, "--precision", "fp32"],
    }


def draw(folder: Path) -> None:
    """A clip and a data set of six people."""
    import cv2

    writer = cv2.VideoWriter(str(folder / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 120))
    for number in range(300):
        frame = np.full((120, 160, 3), 90, np.uint8)
        cv2.circle(frame, (20 + number % 120, 60), 15, (255, 255, 255), -1)
        writer.write(frame)
    writer.release()
    for name in ("photos", "labels"):
        (folder / "ccp" / name).mkdir(parents=True)
    for number in range(6):
        image, raw = np.full((100, 80, 3), 200, np.uint8), np.zeros((100, 80), np.uint8)
        for rows, raw_id in _RAW_IDS:
            image[rows, 20:60], raw[rows, 20:60] = raw_id * 5, raw_id
        cv2.imwrite(str(folder / "ccp" / "photos" / f"p{number}.png"), image)
        cv2.imwrite(str(folder / "ccp" / "labels" / f"p{number}.png"), raw)
    (folder / "ccp" / "train.txt").write_text("p0\np1\np2\np3\n")
    (folder / "ccp" / "val.txt").write_text("p4\np5\n")


def broken_files(folder: Path) -> list[str]:
    """The files under final names that cannot be read whole, each with the reason."""
    found = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or "ccp" in path.parts or "tmp" in path.relative_to(folder).parts:
            continue
        try:
            _read(path)
        except Exception as error:
            found.append(f"{path.relative_to(folder)}: {type(error).__name__}: {error}")
    return found


def _read(path: Path) -> None:
    """Raise whatever the reader of this kind of file raises."""
    if path.is_dir():
        if path.suffix == ".qanet" and any(path.iterdir()):
            open_bundle(path).verify()
    elif path.suffix == ".jsonl":
        for line in path.read_text().splitlines():
            json.loads(line)
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".mp4":
        VideoFile(path, "software")
    elif path.suffix in (".png", ".jpg"):
        read_image(path)
    elif path.suffix in (".pt", ".npz"):
        with zipfile.ZipFile(path) as archive:
            if bad := archive.testzip():
                raise QanetError(f"{path} is broken", got=bad)
    elif path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        load_file(path)


def leftovers(folder: Path) -> list[str]:
    """Temporary files, folders and locks."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.name.startswith((".qanet-", "qanet-")) or path.name.endswith((".partial", ".lock"))
    )


def run_once(arguments: list[str], folder: Path, number: int | None = None, after_s: float = 0.0) -> tuple[int, str]:
    """Exit code and stderr of a command; `number` is sent to it after so many seconds."""
    environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
    with (folder / "tmp" / "stderr").open("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "qanet", *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        try:
            process.wait(_SLOWEST_S if number is None else after_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL if number is None else number)
            process.wait(_SLOWEST_S)
        errors.seek(0)
        return process.returncode, errors.read()


def try_command(name: str, arguments: list[str], folder: Path, stops: int, rng: random.Random) -> Outcome:
    """Run a command whole for its time, end it `stops` times, and run it whole again."""
    begin = time.monotonic()
    code, said = run_once(arguments, folder)
    outcome = Outcome(name, time.monotonic() - begin)
    if code != 0:
        raise QanetError(f"{name} fails without any stop", expected="exit code 0", got=f"{code}: {said[-300:]}")
    for turn in range(stops):
        if name in _RUNS:
            shutil.rmtree(folder / _RUNS[name], ignore_errors=True)  # or there would be nothing left to do
        if name == "build" and turn % 2:
            shutil.rmtree(folder / "new.qanet", ignore_errors=True)  # every other time into a new bundle
        number = SIGNALS[turn % len(SIGNALS)]
        after_s = rng.uniform(_EARLIEST_S, outcome.seconds * _MARGIN)
        code, said = run_once(arguments, folder, number, after_s)
        key = f"{number.name} {code}"
        outcome.codes[key] = outcome.codes.get(key, 0) + 1
        case = f"{name}, {number.name} after {after_s:.2f} s"
        outcome.broken += [f"{case}: {line}" for line in broken_files(folder)]
        early = "qanet/commandline.py" not in said  # Python itself was stopped before it came to the command
        if "Traceback" in said and not early:
            outcome.broken.append(f"{case}: a traceback: {said.strip().splitlines()[-1]}")
    code, said = run_once(arguments, folder)
    if code != 0:
        outcome.broken.append(f"{name}: exit code {code} after the stops: {said.strip().splitlines()[-1]}")
    outcome.broken += [f"{name}: left after the next run: {path}" for path in leftovers(folder)]
    return outcome


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = command_parser("stops", "End commands at random moments, and look at what they leave.")
    parser.prog = "python -m qanet.benchmarks.lab.stops"
    parser.add_argument("--stops", type=positive_int, default=200, metavar="N", help="in all (default: 200)")
    parser.add_argument("--commands", default="", metavar="NAME,NAME", help="stop only these (default: all)")
    parser.add_argument("--output", type=output_folder, default="stops", metavar="DIR", help="folder to work in")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    folder, rng = Path(args.output).absolute(), random.Random(args.seed)
    if folder.exists() and any(folder.iterdir()):
        raise QanetError(f"{folder} is not empty", expected="a new folder", got="files")
    (folder / "tmp").mkdir(parents=True)
    draw(folder)
    lines = commands(folder)
    chosen = args.commands.split(",") if args.commands else list(lines)
    outcomes = []
    for name, arguments in lines.items():
        if name not in chosen:
            run_once(arguments, folder)  # what it makes is needed
            continue
        share = args.stops // len(chosen) + (chosen.index(name) < args.stops % len(chosen))
        outcomes.append(try_command(name, arguments, folder, share, rng))
        note(f"{name}: {share} stops, {len(outcomes[-1].broken)} broken promises")
    broken = [line for outcome in outcomes for line in outcome.broken]
    rows = [
        (o.name, round(o.seconds, 1), sum(o.codes.values()), ", ".join(f"{n}x {k}" for k, n in sorted(o.codes.items())))
        for o in outcomes
    ]
    text = "\n".join([table(rows, ("command", "seconds", "stops", "signal and exit code")), *broken])
    emit(args.json, {"broken": broken, "commands": {o.name: o.codes for o in outcomes}}, text)
    return 1 if broken else 0


if __name__ == "__main__":
    run_module(main)
