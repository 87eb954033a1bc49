"""`qanet parse` as a user meets it: what it prints, its exit codes, and one clear line for every mistake."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import cv2
import pytest

from qanet.__main__ import COMMANDS, main


def start(*arguments, limit_bytes=None, **options):
    """The command in a process of its own; `limit_bytes`: no file may grow beyond, as on a disk that is full."""
    limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))) if limit_bytes else None
    command = [sys.executable, "-m", "qanet", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limit, **options
    )


@pytest.fixture
def arguments(shared_tiny_bundle, boxes_file):
    """What every call of these tests has in common."""
    return ["--model", shared_tiny_bundle, "--boxes", boxes_file, "--threads", "1"]


def test_json_is_one_document_on_stdout(make_clip, arguments, tmp_path, capfd):
    clip, out, results = make_clip(4), tmp_path / "o.avi", tmp_path / "o.jsonl"
    (tmp_path / "boxes.json").write_text("[[20, 20, 60, 100], [100, 30, 140, 110]]")
    code = main([str(a) for a in ("parse", clip, out, "--results", results, "--json", *arguments)])
    captured = capfd.readouterr()
    document = json.loads(captured.out)
    assert code == 0 and captured.err == ""
    assert (document["frames"], document["people"], document["interrupted"]) == (4, 8, False)
    assert (document["output"], document["results"]) == (str(out), str(results))
    assert document["stages_ms"].keys() >= {"decode", "detect", "crop", "engine", "tail", "write"}
    assert out.exists() and len(results.read_text().splitlines()) == 4


def test_text_tells_the_counts_and_what_was_written(make_clip, arguments, tmp_path, capfd):
    assert main([str(a) for a in ("parse", make_clip(3), tmp_path / "out", "--quiet", *arguments)]) == 0
    text = capfd.readouterr().out
    assert text.startswith("3 frames, 2.00 people per frame, ") and "(tiny fp32 on openvino, detector: boxes of" in text
    assert f"wrote {tmp_path / 'out'}" in text and "p50 ms" in text
    assert sorted(os.listdir(tmp_path / "out")) == ["000000.png", "000001.png", "000002.png"]


def test_a_video_that_ends_early_is_a_warning_and_no_error(make_clip, arguments, tmp_path, capfd):
    clip = make_clip(20)
    os.truncate(clip, int(clip.stat().st_size * 0.6))
    (tmp_path / "list.json").write_text("[[20, 20, 60, 100]]")
    arguments[3] = tmp_path / "list.json"
    assert main([str(a) for a in ("parse", clip, "--results", tmp_path / "o.jsonl", "--json", *arguments)]) == 0
    captured = capfd.readouterr()
    assert json.loads(captured.out)["frames"] == len((tmp_path / "o.jsonl").read_text().splitlines()) > 5
    assert captured.err.splitlines()[-1].startswith(f"warning: {clip} ends early: 20 frames announced")


@pytest.mark.parametrize(
    ("options", "views"), [([], 1), (["--flip"], 2), (["--scales", "1,1.2"], 2), (["--flip", "--scales", "1,0.9"], 4)]
)
def test_flip_and_scales_reach_the_parser(make_clip, arguments, tmp_path, monkeypatch, capfd, options, views):
    from qanet.runtime.cli import command

    seen, real = [], command.load
    monkeypatch.setattr(command, "load", lambda *a, **k: seen.append(real(*a, **k)) or seen[-1])
    results = tmp_path / "o.jsonl"
    assert main([str(a) for a in ("parse", make_clip(2), "--results", results, "--json", *options, *arguments)]) == 0
    assert seen[0].augmentation.views == views and json.loads(capfd.readouterr().out)["people"] == 4
    classes = [
        {p["class_id"] for p in person["parts"]}
        for line in results.read_text().splitlines()
        for person in json.loads(line)["people"]
    ]
    assert all({1, 2} <= found for found in classes)


@pytest.mark.parametrize("options", [["--smooth"], ["--smooth", "--no-carry"]])
def test_smooth_numbers_the_people_and_is_timed(make_clip, arguments, tmp_path, capfd, options):
    results = tmp_path / "o.jsonl"
    assert main([str(a) for a in ("parse", make_clip(5), "--results", results, "--json", *options, *arguments)]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["stages_ms"]["smooth"]["n"] == 5
    people = [json.loads(line)["people"] for line in results.read_text().splitlines()]
    assert [sorted(p["track_id"] for p in frame) for frame in people] == [[1, 2]] * 5


def test_a_crowd_is_cut_and_told(make_clip, arguments, capfd):
    assert main([str(a) for a in ("parse", make_clip(2), "--quiet", "--max-people", "1", *arguments)]) == 0
    captured = capfd.readouterr()
    assert captured.out.startswith("2 frames, 1.00 people per frame")
    assert "2 frames have more than 1 people, up to 2: the best 1 by score were parsed" in captured.err


def test_skipped_frames_are_shown(make_clip, arguments, capfd):
    clip = make_clip(8)
    data = bytearray(clip.read_bytes())
    start = data.find(b"movi")
    for _ in range(4):
        start = data.find(b"00dc", start + 1)
    size = int.from_bytes(data[start + 4 : start + 8], "little")
    data[start + 8 : start + 8 + size] = bytes(size)
    clip.write_bytes(data)
    assert main([str(a) for a in ("parse", clip, "--quiet", *arguments)]) == 0
    captured = capfd.readouterr()
    assert "7 frames" in captured.out and "skipped: 1" in captured.out
    assert "broken frames skipped: 1, the first is number 3" in captured.err


def test_boxes_for_frames_that_never_come_are_told(make_clip, arguments, capfd):
    assert main([str(a) for a in ("parse", make_clip(2), "--quiet", *arguments)]) == 0
    assert "has boxes for 98 frames that never came, such as 2, 3, 4" in capfd.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_stop_keeps_what_was_parsed(make_clip, arguments, tmp_path, number, code):
    clip = make_clip(1200)
    process = start(
        "parse",
        clip,
        tmp_path / "o.mp4",
        "--results",
        tmp_path / "o.jsonl",
        "--whole-image",
        "--json",
        *arguments[:2],
        cwd=tmp_path,
    )
    deadline = time.monotonic() + 30
    while not any(p.stat().st_size > 20_000 for p in tmp_path.glob(".qanet-*.jsonl")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    records = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert process.returncode == code and "Traceback" not in err
    assert json.loads(out)["interrupted"] and json.loads(out)["frames"] == len(records)
    assert [r["frame"] for r in records] == list(range(len(records))) and 0 < len(records) < 1200
    assert int(cv2.VideoCapture(str(tmp_path / "o.mp4")).get(cv2.CAP_PROP_FRAME_COUNT)) == len(records)
    assert not list(tmp_path.glob(".qanet-*"))


@pytest.mark.parametrize(
    "outputs", [["--results", "o.jsonl"], ["o.avi"], ["o.webm"], ["o.mp4"], ["o.mkv"], ["pictures"]]
)
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(make_clip, arguments, tmp_path, outputs):
    clip = make_clip(60)
    where = tmp_path / "out"
    where.mkdir()
    limit = 300 if outputs == ["pictures"] else 6000
    process = start("parse", clip, *outputs, "--json", *arguments, limit_bytes=limit, cwd=where)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2 and out == ""
    lines = err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: could not write ") and "; next: free some space" in lines[0]
    assert [p for p in where.rglob("*") if p.is_file()] == []


def one_error(capfd) -> str:
    """The only line on stderr besides notes; nothing is on stdout."""
    captured = capfd.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1 and lines[0].startswith("error: "), captured.err
    assert captured.out == ""
    return lines[0]


CLIP, BUNDLE, DIRECTORY = "<clip>", "<bundle>", "<directory>"
MISTAKES = {
    "no input": (
        ["parse", "nowhere.mp4"],
        "nowhere.mp4: no such file (expected a video, an image or a folder of images)",
    ),
    "name too long": (["parse", "x" * 300], "File name too long"),
    "no argument": (["parse"], "the following arguments are required: INPUT_URI; next: qanet parse --help"),
    "no model": (["parse", CLIP, "--model", "nowhere", "--whole-image"], "no bundle 'nowhere'"),
    "no detector": (["parse", CLIP, "--detector", "x.onnx", "--model", BUNDLE], "no detector at x.onnx"),
    "no boxes": (
        ["parse", CLIP, "--boxes", "x.json", "--model", BUNDLE],
        "no file x.json (expected boxes of people, got missing",
    ),
    "unknown command": (["prase", CLIP], "no command 'prase', did you mean 'parse'? (expected one of doctor, "),
    "nonsense": (["xyzzy"], "no command 'xyzzy' (expected one of doctor"),
    "unknown option": (["parse", CLIP, "--fast"], "unrecognized arguments: --fast; next: qanet parse --help"),
    "abbreviation": (["parse", CLIP, "--resu", "o.jsonl"], "unrecognized arguments: --resu"),
    "unknown device": (["parse", CLIP, "--device", "tpu"], "argument --device: invalid choice: 'tpu'"),
    "unknown precision": (
        ["parse", CLIP, "--precision", "int4", "--model", BUNDLE, "--whole-image"],
        "unknown precision",
    ),
    "no such precision": (
        ["parse", CLIP, "--precision", "int8", "--model", BUNDLE, "--whole-image", "--device", "cpu"],
        "has no int8 graph",
    ),
    "not a number": (["parse", CLIP, "--threads", "-2"], "argument --threads: expected a whole number, got '-2'"),
    "no cadence": (["parse", CLIP, "--detect-every", "often"], "argument --detect-every: expected a whole number"),
    "no scales": (["parse", CLIP, "--scales", "1,big"], "argument --scales: expected numbers separated by commas, got"),
    "scales that do not fit": (
        ["parse", CLIP, "--scales", "1,9", "--model", BUNDLE, "--whole-image"],
        "scales do not fit",
    ),
    "flip without logits": (
        ["parse", CLIP, "--flip", "--tail", "graph", "--model", BUNDLE, "--whole-image"],
        "cannot average views",
    ),
    "two detectors": (["parse", CLIP, "--whole-image", "--boxes", "b.json"], "not allowed with argument"),
    "one picture": (["parse", CLIP, "o.png", "--model", BUNDLE, "--whole-image"], "o.png holds one picture, the input"),
    "unknown format": (["parse", CLIP, "o.gif", "--model", BUNDLE, "--whole-image"], "unknown output format o.gif"),
    "folder for a file": (
        ["parse", CLIP, "--results", DIRECTORY, "--model", BUNDLE, "--whole-image"],
        "a folder of that name",
    ),
    "onto itself": (["parse", CLIP, CLIP, "--model", BUNDLE, "--whole-image"], "clip.avi would be overwritten"),
    "both into one": (
        ["parse", CLIP, "o.avi", "--results", "o.avi", "--model", BUNDLE, "--whole-image"],
        "are one file",
    ),
    "inspect nothing": (["inspect", "nowhere.qanet"], "no bundle 'nowhere.qanet'"),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_two(
    arguments, message, make_clip, shared_tiny_bundle, tmp_path, monkeypatch, capfd
):
    clip = make_clip(1)
    monkeypatch.chdir(tmp_path)
    before = clip.read_bytes()
    places = {CLIP: str(clip), BUNDLE: str(shared_tiny_bundle), DIRECTORY: str(tmp_path)}
    assert main([places.get(a, a) for a in arguments]) == 2
    assert message in one_error(capfd)
    assert os.listdir(tmp_path) == ["clip.avi"] and clip.read_bytes() == before


def test_broken_inputs_are_told_in_silence_of_everybody_else(shared_tiny_bundle, tmp_path):
    """OpenCV and FFmpeg print to stderr themselves where nobody stops them, so this is a process of its own."""
    (tmp_path / "text_01.mp4").write_text("hello")
    (tmp_path / "zero.avi").touch()
    (tmp_path / "cut.png").write_bytes(cv2.imencode(".png", cv2.UMat(30, 30, cv2.CV_8UC3))[1].tobytes()[:60])
    (tmp_path / "empty").mkdir()
    expected = {
        "text_01.mp4": "cannot be decoded as video",
        "zero.avi": "is empty",
        "cut.png": "is truncated",
        "empty": "no images in",
        "rtsp://127.0.0.1:9/nothing": "cannot open rtsp://127.0.0.1:9/nothing",
        "/dev/video93": "cannot open /dev/video93",
    }
    for name, message in expected.items():
        process = start("parse", name, "--model", shared_tiny_bundle, "--whole-image", "--json", cwd=tmp_path)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 2 and out == "" and err.count("\n") == 1, err
        assert err.startswith("error: ") and message in err


def test_a_changed_bundle_and_a_newer_one_are_refused(make_clip, tiny_bundle, capfd):
    clip = str(make_clip(1))
    graph, manifest = tiny_bundle / "model.onnx", tiny_bundle / "manifest.json"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    for command in (["parse", clip, "--model", str(tiny_bundle), "--whole-image"], ["inspect", str(tiny_bundle)]):
        assert main(command) == 2
        assert "model.onnx was changed after it was made" in one_error(capfd)
    manifest.write_text(manifest.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    assert main(["inspect", str(tiny_bundle)]) == 2
    assert "was made by a newer qanet-edge" in one_error(capfd)


def test_inspect_tells_what_a_bundle_is(shared_tiny_bundle, capfd):
    assert main(["inspect", str(shared_tiny_bundle)]) == 0
    text = capfd.readouterr().out
    assert "ccp13, 13 classes, crops 64x64" in text and "model.onnx" in text and "no engines yet" in text
    assert main(["inspect", str(shared_tiny_bundle), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["files_verified"] is True


def test_a_package_that_is_missing_is_named_with_its_command(make_clip, shared_tiny_bundle, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed
    arguments = ["parse", str(make_clip(1)), "--model", str(shared_tiny_bundle), "--whole-image", "--device", "cpu"]
    assert main(arguments) == 2
    assert "openvino" in (line := one_error(capfd)) and "pip install" in line


def test_help_lists_every_command_and_version_is_a_version(capfd):
    assert main([]) == main(["--help"]) == main(["--version"]) == 0
    text = capfd.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS) and text.splitlines()[-1].startswith("qanet-edge 0.")


def test_a_reader_who_goes_away_is_no_error(shared_tiny_bundle):
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    process = start("inspect", shared_tiny_bundle, "--json", env=buffered)
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(timeout=30) == 0
