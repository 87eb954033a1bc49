"""A lock holds between processes, says who holds it, and is gone with its holder."""

import os
import subprocess
import sys
import time

import pytest

from qanet.errors import QanetError
from qanet.files import locked

HOLD = """
import sys, time
from pathlib import Path
from qanet.files import locked
with locked(Path(sys.argv[1]), timeout_s=5, doing="testing"):
    print("held", flush=True)
    sys.stdin.readline()
"""
COUNT = """
import sys
from pathlib import Path
from qanet.files import locked
folder = Path(sys.argv[1])
for _ in range(40):
    with locked(folder / "lock", timeout_s=30, doing="counting"):
        number = int((folder / "number").read_text())
        (folder / "number").write_text(str(number + 1))
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds tmp_path/lock until its stdin gets a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_who_holds_it_is_named_when_the_time_is_over(tmp_path, holder):
    said = []
    message = f"building must wait for process {holder.pid} .expected its end within 0.2 s.*; next: wait for process"
    with (
        pytest.raises(QanetError, match=message),
        locked(tmp_path / "lock", timeout_s=0.2, doing="building", waiting=said.append),
    ):
        pytest.fail("two hold it")
    assert said == [f"building: waiting for process {holder.pid}, up to 0.2 s"]


def test_it_is_had_when_the_holder_ends(tmp_path, holder):
    holder.communicate("\n")
    with locked(tmp_path / "lock", timeout_s=5, doing="building"):
        assert (tmp_path / "lock").read_text() == str(os.getpid())
    assert os.listdir(tmp_path) == []


def test_a_holder_that_is_killed_holds_nothing(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert (tmp_path / "lock").exists()
    started = time.monotonic()
    with locked(tmp_path / "lock", timeout_s=5, doing="building"):
        assert time.monotonic() - started < 4


def test_an_error_inside_gives_it_back(tmp_path):
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"), locked(tmp_path / "lock", timeout_s=0, doing="building"):
            raise ValueError("broken")
    assert os.listdir(tmp_path) == []


def test_processes_take_turns(tmp_path):
    (tmp_path / "number").write_text("0")
    command = [sys.executable, "-c", COUNT, str(tmp_path)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert (tmp_path / "number").read_text() == "120"


@pytest.mark.parametrize("kind", ["link", "file for a folder"])
def test_a_place_that_can_hold_no_lock(tmp_path, kind):
    (tmp_path / "file").write_text("kept")
    path = tmp_path / "lock" if kind == "link" else tmp_path / "file" / "lock"
    if kind == "link":
        path.symlink_to(tmp_path / "file")  # whoever may write here cannot have another file emptied
    with pytest.raises(QanetError, match="cannot lock"), locked(path, timeout_s=0, doing="building"):
        pytest.fail("locked")
    assert (tmp_path / "file").read_text() == "kept"
