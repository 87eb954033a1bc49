"""What a command writes: to which file, with which mode, and never over something that it reads."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from qanet.errors import QanetError
from qanet.files import fitting_name, write_bytes, write_text, written, written_aside
from qanet.paths import check_outputs, local_path, same_file

OLD, NEW = b"old", b"new bytes"


def by_bytes(path):
    write_bytes(path, NEW)


def by_name(path):
    with written_aside(path) as aside:
        aside.write_bytes(NEW)


def by_handle(path):
    with written(path) as file:
        file.write(NEW[:3])
        file.write(NEW[3:])


every_writer = pytest.mark.parametrize("write", [by_bytes, by_name, by_handle])
PLACES = {
    "a new file": lambda folder: (folder / "a", folder / "a"),
    "a file that is there": lambda folder: (made(folder / "a"), folder / "a"),
    "a link": lambda folder: (link(folder / "l", made(folder / "a")), folder / "a"),
    "a relative link": lambda folder: (link(folder / "l", Path("a")), folder / "a"),
    "a link to nothing yet": lambda folder: (link(folder / "l", folder / "to come"), folder / "to come"),
    "a link to a link": lambda folder: (link(folder / "l", link(folder / "m", made(folder / "a"))), folder / "a"),
    "a link to a folder above": lambda folder: (link(folder / "up", sub(folder)) / "a", folder / "sub" / "a"),
    "a name of 255 bytes": lambda folder: (folder / ("é" * 125 + ".avif"), folder / ("é" * 125 + ".avif")),
    "a suffix of 250 bytes": lambda folder: (folder / ("a." + "b" * 250), folder / ("a." + "b" * 250)),
    "a name like an option": lambda folder: (folder / "-a b:c\n", folder / "-a b:c\n"),
}


def made(path):
    path.write_bytes(OLD)
    return path


def link(path, target):
    path.symlink_to(target)
    return path


def sub(folder):
    (folder / "sub").mkdir()
    return folder / "sub"


@every_writer
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_the_file_is_written_and_links_stay(tmp_path, place, write):
    path, target = place(tmp_path)
    links = {p: os.readlink(p) for p in tmp_path.iterdir() if p.is_symlink()}
    names = {*os.listdir(tmp_path), target.name} if target.parent == tmp_path else {*os.listdir(tmp_path)}
    write(path)
    assert target.read_bytes() == NEW and not target.is_symlink()
    assert {p: os.readlink(p) for p in links} == links and set(os.listdir(tmp_path)) == names


@every_writer
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664), (0o027, 0o640)])
def test_a_new_file_has_the_mode_of_the_umask(tmp_path, umask, mode, write):
    before = os.umask(umask)
    try:
        write(tmp_path / "a")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o7777 == mode


@every_writer
@pytest.mark.parametrize("mode", [0o600, 0o666, 0o755, 0o4750])
def test_a_file_that_is_there_keeps_its_mode(tmp_path, mode, write):
    made(tmp_path / "a").chmod(mode)
    write(tmp_path / "a")
    assert (tmp_path / "a").stat().st_mode & 0o7777 == mode and (tmp_path / "a").read_bytes() == NEW


@every_writer
@pytest.mark.parametrize("through_a_link", [False, True])
def test_the_reader_of_a_pipe_gets_it(tmp_path, write, through_a_link):
    os.mkfifo(tmp_path / "p")
    path = link(tmp_path / "l", tmp_path / "p") if through_a_link else tmp_path / "p"
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "p").read_bytes()))
    reader.start()
    write(path)
    reader.join(5)
    assert got == [NEW] and (tmp_path / "p").is_fifo()


@every_writer
def test_a_device_is_written_to_and_stays(tmp_path, write):
    if os.geteuid() != 0:
        pytest.skip("only root makes device nodes")
    try:
        os.mknod(tmp_path / "null", 0o020666, os.makedev(1, 3))
        (tmp_path / "null").write_bytes(b"")
    except OSError:
        pytest.skip("device nodes do not work in this folder")
    write(tmp_path / "null")
    assert (tmp_path / "null").is_char_device() and os.listdir(tmp_path) == ["null"]


PROGRAM = """
import sys
from pathlib import Path
from qanet.files import write_bytes
print("before", flush=True)
write_bytes(Path(sys.argv[1]), b"bytes\\n")
print("after")
"""


@pytest.mark.parametrize("name", ["/dev/stdout", "/proc/self/fd/1", "/dev/fd/1", "link"])
@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_standard_output_gets_it_in_its_order(tmp_path, name, kind):
    if name == "link":
        name = str(link(tmp_path / "l", Path("/proc/self/fd/1")))
    command = [sys.executable, "-c", PROGRAM, name]
    if kind == "pipe":
        got = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    else:
        with (tmp_path / "o").open("wb") as file:
            subprocess.run(command, stdout=file, check=True)
        got = (tmp_path / "o").read_bytes()
    assert got == b"before\nbytes\nafter\n"


def loop(folder):
    return link(folder / "a", link(folder / "b", folder / "a"))


def unix_socket(folder):
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(folder / "s"))
    return folder / "s"


REFUSED = {
    "a folder": (lambda folder: folder, "a folder of that name"),
    "a socket": (unix_socket, "a socket of that name"),
    "a loop of links": (loop, "a loop of links"),
    "a NUL": (lambda folder: folder / "a\0b", "a name without a NUL"),
    "a name of 256 bytes": (lambda folder: folder / ("a" * 256), "File name too long"),
}


@every_writer
@pytest.mark.parametrize(("place", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_written_is_one_line(tmp_path, monkeypatch, place, message, write):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    path = place(Path(".") if message.startswith("a socket") else tmp_path)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(QanetError, match=message) as raised:
        write(path)
    assert "\n" not in raised.value.line() and sorted(os.listdir(tmp_path)) == before


KILLED = """
import os, signal, sys
from pathlib import Path
from qanet.files import written_aside
from qanet.scratch import scratch_folder
with written_aside(Path(sys.argv[1]) / "a.jsonl") as aside, scratch_folder() as folder:
    aside.write_text("half")
    (folder / "model.onnx").write_text("half")
    print("writing", flush=True)
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.readline()
"""


def writer(folder, end):
    """A process that writes folder/a.jsonl and stops in the middle."""
    command = [sys.executable, "-c", KILLED, str(folder), end]
    environment = {**os.environ, "TMPDIR": str(folder)}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "writing\n"
    return process


def test_the_next_run_removes_what_killed_ones_left_and_nothing_else(tmp_path):
    (tmp_path / ".qanet-notes").write_text("mine")
    for _ in range(3):
        killed = writer(tmp_path, "killed")
        killed.communicate()
        assert len(os.listdir(tmp_path)) == 3  # the last one's file and folder, and mine
    alive = writer(tmp_path, "alive")  # the next run, and itself one that must be left alone
    assert len(os.listdir(tmp_path)) == 3
    third = writer(tmp_path, "alive")
    for process in (alive, third):
        process.communicate("\n")
        assert process.returncode == 0
    assert sorted(os.listdir(tmp_path)) == [".qanet-notes", "a.jsonl"]


def paths(folder):
    """A photograph under several names, a bundle, and files that are not there."""
    (folder / "photos").mkdir()
    (folder / "B.qanet").mkdir()
    made(folder / "photos" / "a.png")
    made(folder / "B.qanet" / "model.onnx")
    link(folder / "link.png", folder / "photos" / "a.png")
    link(folder / "other", folder / "photos")
    os.link(folder / "photos" / "a.png", folder / "hard.png")
    return folder


OVERLAPS = {
    "the same": ["photos/a.png"],
    "another spelling": ["photos/../photos/./a.png"],
    "a link to it": ["link.png"],
    "by a link above": ["other/a.png"],
    "a second name of it": ["hard.png"],
    "the model": ["B.qanet/model.onnx"],
    "a new file in the model": ["B.qanet/new.jsonl"],
    "two in one": ["o.avi", "./o.avi"],
    "two that differ in case": ["o.avi", "O.AVI"],
    "two that differ in Unicode form": ["\u00e9.avi", "e\u0301.avi"],
    "two in one, by a link": ["photos/new.png", "other/new.png"],
}
APART = {
    "beside the input": ["photos/b.png", "photos/a.jsonl"],
    "two names": ["o.avi", "o.jsonl"],
    "one name in two folders": ["photos/o.avi", "o.avi"],
    "nothing is kept twice": ["/dev/null", "/dev/null"],
}


@pytest.mark.parametrize(
    ("outputs", "refused"),
    [*((given, True) for given in OVERLAPS.values()), *((given, False) for given in APART.values())],
    ids=[*OVERLAPS, *APART],
)
def test_outputs_are_compared_as_files(tmp_path, monkeypatch, outputs, refused):
    monkeypatch.chdir(paths(tmp_path))
    given = {"read": ["photos/a.png"], "inside": [Path("B.qanet")]}
    if not refused:
        return check_outputs(map(Path, outputs), **given)
    with pytest.raises(QanetError, match="would be overwritten|are one file|is in use"):
        check_outputs(map(Path, outputs), **given)


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("a%20b.mp4", "a%20b.mp4"),
        ("file://a%20b.mp4", "a b.mp4"),
        ("file:///x/a%20b.mp4", "/x/a b.mp4"),
        ("file://localhost/x/%C3%A9.mp4", "/x/é.mp4"),
        ("file:///x/100%.mp4", "/x/100%.mp4"),
        ("12:30:00.mp4", "12:30:00.mp4"),
    ],
)
def test_an_address_is_a_path(address, path):
    assert local_path(address) == Path(path)


def test_a_file_whose_name_has_the_escape_in_it_is_found(tmp_path):
    made(tmp_path / "a%20b.mp4")
    assert local_path(f"file://{tmp_path}/a%20b.mp4").name == "a%20b.mp4"


def test_a_long_name_fits_and_keeps_its_suffix():
    assert fitting_name("short", ".png") == "short.png"
    assert len(os.fsencode(fitting_name("人" * 100, ".jsonl"))) <= 255


def test_same_file_of_two_that_are_not_there(tmp_path):
    assert same_file(tmp_path / "x" / "a", tmp_path / "x" / ".." / "x" / "a") is True
    assert same_file(tmp_path / "a", tmp_path / "b") is False


def test_a_read_only_file_is_not_replaced(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    made(tmp_path / "a").chmod(0o444)
    with pytest.raises(QanetError, match="Permission denied"):
        write_text(tmp_path / "a", "new")
