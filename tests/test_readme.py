"""The README's commands run as they stand, in a folder that has the files they name."""

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_people import write_small_ccp

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
COMMANDS = [
    line.split("#")[0].strip()
    for language, block in BLOCKS
    if language == "bash"
    for line in block.splitlines()
    if line.strip()
]
PYTHON = [block for language, block in BLOCKS if language == "python"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """clip.mp4 and street.jpg: a drawn person who walks; CCP/: six drawn people in the layout of that data set."""
    root = tmp_path_factory.mktemp("readme")
    write_small_ccp(root / "CCP")
    writer = cv2.VideoWriter(str(root / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (320, 240))
    for step in range(6):
        frame = np.full((240, 320, 3), 190, np.uint8)
        x = 60 + 20 * step
        cv2.circle(frame, (x + 20, 50), 18, (120, 160, 210), -1)
        cv2.rectangle(frame, (x, 70), (x + 40, 140), (40, 60, 180), -1)
        cv2.rectangle(frame, (x + 4, 140), (x + 36, 220), (110, 60, 30), -1)
        writer.write(frame)
        cv2.imwrite(str(root / "street.jpg"), frame)
    writer.release()
    return root


def test_make_targets_exist():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    used = [line.split()[1] for line in COMMANDS if line.startswith("make ")]
    assert {"demo", "test"} <= set(used) and set(used) <= set(targets)


@pytest.mark.slow
def test_the_commands_run_in_their_order(folder):
    lines = [line for line in COMMANDS if line.startswith("qanet ")]
    assert len(lines) >= 12
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for line in lines:
        if line.startswith("qanet train"):
            line += " epochs=0 pretrained=false"  # the recipe takes an hour; the command is checked down to an epoch
        done = subprocess.run(
            line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def test_the_python_block_runs(folder):
    assert len(PYTHON) == 1
    done = subprocess.run(
        [sys.executable, "-c", PYTHON[0]], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "out.png").stat().st_size > 1000
