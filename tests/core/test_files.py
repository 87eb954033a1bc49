"""A file appears whole or not at all, also on a full disk; a lock holds between processes and names its holder."""

import os
import subprocess
import sys
import textwrap
import time

import pytest

from qanet.errors import QanetError
from qanet.files import check_room, locked, write_by, write_bytes, write_text, written_aside


def test_a_file_and_its_folders_are_written(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    write_text(path, "grüße")
    assert path.read_bytes() == "grüße".encode() and os.listdir(path.parent) == ["c.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_the_file_aside_keeps_the_suffix(tmp_path):
    with written_aside(tmp_path / "clip.webm") as aside:
        assert aside.suffix == ".webm" and aside.parent == tmp_path
        aside.write_bytes(b"video")
    assert (tmp_path / "clip.webm").read_bytes() == b"video"


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)), written_aside(path) as aside:
        aside.write_text("half")
        raise error
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_is_one_clear_error(tmp_path):
    """A process that may write no file beyond 10,000 bytes stands for a disk that is full."""
    script = f"""
        import resource, sys
        from pathlib import Path
        from qanet.errors import QanetError
        from qanet.files import write_bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            write_bytes(Path({str(tmp_path)!r}) / "a.bin", bytes(50_000))
        except QanetError as error:
            print(error)
    """
    (tmp_path / "a.bin").write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"could not write {tmp_path}/a.bin (expected room on the disk and the right to write")
    assert done.stdout.count("\n") == 1 and "File too large" in done.stdout
    assert (tmp_path / "a.bin").read_bytes() == b"old" and os.listdir(tmp_path) == ["a.bin"]


def test_a_disk_that_fills_up_at_the_end_counts_too(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(QanetError, match="could not write .*No space left on device"):
        write_bytes(tmp_path / "a.bin", b"data")
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(QanetError, match="could not write .*file/a.txt .*; next: free some space or choose another"):
        write_text(tmp_path / "file" / "a.txt", "text")


def test_a_librarys_failure_counts_as_a_full_disk(tmp_path):
    def writer(path):
        raise RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file")

    with pytest.raises(QanetError, match="could not write .*PytorchStreamWriter"):
        write_by(tmp_path / "a.pt", writer)
    assert os.listdir(tmp_path) == []


def test_room_is_checked_also_under_a_folder_to_come(tmp_path):
    check_room(tmp_path / "not" / "yet", 1)
    with pytest.raises(QanetError, match="no room to write into .* MiB free, got "):
        check_room(tmp_path / "not" / "yet", 1 << 60)


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
