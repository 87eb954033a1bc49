"""A soak counts what is lost: readings of the process, limits, and a short run of the whole command."""

import json

import pytest

from qanet.benchmarks.lab.soak import Limits, Looped, Reading, Watch, growth_mib, judge, main, read_process
from qanet.errors import QanetError
from qanet.runtime.video.frame import Frame
from qanet.runtime.video.sources import open_source


def reading(frame=0, rss_mib=100.0, threads=5, python_threads=2, files=7):
    return Reading(frame, rss_mib, threads, python_threads, files)


def ramp(mib_per_1000=0.0, frames=20_000, jitter=0.0, base=100.0):
    steps = range(0, frames + 1, 50)
    return [reading(k, base + mib_per_1000 * k / 1000 + jitter * (i % 3 - 1)) for i, k in enumerate(steps)]


def test_this_process_is_read(tmp_path):
    before = read_process(3)
    with (tmp_path / "held").open("w"):
        now = read_process(4)
    assert now.files == before.files + 1 and now.frame == 4
    assert now.rss_mib > 10 and now.threads >= now.python_threads >= 1


def test_a_system_without_proc_is_told(tmp_path):
    with pytest.raises(QanetError, match="memory cannot be watched here .expected Linux's /proc"):
        read_process(0, tmp_path)


def test_a_watch_looks_every_so_many_frames():
    watch = Watch(3)
    for frames in range(1, 10):
        watch(frames)
    assert [r.frame for r in watch.readings] == [3, 6, 9]


@pytest.mark.parametrize(
    ("readings", "settle", "expected"),
    [
        (ramp(0.0), 500, 0.0),
        (ramp(1.0), 500, 17.6),  # a line of 19,500 frames between the middles of its first and its last tenth
        (ramp(0.0, jitter=20.0), 500, 0.0),
        ([reading(0, 50.0), *ramp(0.0)[11:]], 500, 0.0),  # what is taken before `settle` is no growth
        (ramp(0.0, frames=100), 0, None),
        ([], 0, None),
    ],
)
def test_growth_is_between_the_ends_and_blind_to_jitter(readings, settle, expected):
    found = growth_mib(readings, settle)
    assert found is None if expected is None else found == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("readings", "after", "limits", "broken"),
    [
        (ramp(0.2), reading(), Limits(), []),
        (ramp(1.0), reading(), Limits(), ["memory grew by 17.6 MiB, above 10"]),
        (ramp(1.0), reading(), Limits(growth_mib=20), []),
        (ramp(base=600), reading(), Limits(), ["resident memory reached 600 MiB, above 500"]),
        (ramp(base=600), reading(), Limits(peak_mib=None), []),
        (ramp(), reading(threads=6), Limits(), ["threads left behind: 1"]),
        (ramp(), reading(threads=3), Limits(), []),
        (ramp(), reading(python_threads=4), Limits(), ["threads of the pipeline left behind: 2"]),
        (ramp(), reading(files=90), Limits(), ["open files left behind: 83"]),
        (ramp(frames=100), reading(), Limits(), ["fewer than 4 readings after 500 frames: growth was not measured"]),
    ],
)
def test_each_limit_is_kept_or_broken(readings, after, limits, broken):
    assert judge(reading(), readings, after, limits)["broken"] == broken


def test_the_verdict_has_the_slope_and_what_was_held_before_at_most_and_after():
    verdict = judge(reading(), ramp(0.5), reading(files=9), Limits(settle=0))
    assert verdict["mib_per_1000_frames"] == pytest.approx(0.5)
    assert verdict["files"] == {"before": 7, "most": 9, "after": 9}


class Clip:
    kind, fps, expected_frames, warnings = "video", 10.0, 3, ()
    opened = closed = 0

    def __init__(self, frames=3):
        self.frames = frames

    def __iter__(self):
        Clip.opened += 1
        try:
            for index in range(self.frames):
                yield Frame(index, str(index), None)
        finally:
            Clip.closed += 1


def test_a_clip_starts_again_until_enough_frames_have_come(monkeypatch):
    monkeypatch.setattr(Clip, "opened", 0)
    monkeypatch.setattr(Clip, "closed", 0)
    source = Looped(Clip, 7)
    assert [(f.index, f.name) for f in source] == [(k, str(k)) for k in range(7)]
    assert (source.turns, Clip.opened, Clip.closed) == (3, 3, 3)
    with pytest.raises(QanetError, match="the clip has no frame"):
        list(Looped(lambda: Clip(0), 7))


def arguments(clip, bundle, boxes, *more):
    return [str(clip), "--model", str(bundle), "--boxes", str(boxes), "--threads", "1", "--device", "cpu", *more]


def test_a_short_soak_of_the_whole_command_keeps_every_limit(
    make_clip, shared_tiny_bundle, boxes_file, tmp_path, capsys
):
    output = tmp_path / "soak.json"
    run = arguments(make_clip(20), shared_tiny_bundle, boxes_file, "--frames", "600", "--settle", "200")
    code = main([*run, "--peak-mib", "0", "--output", str(output), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["broken"] == [] and code == 0
    assert document["frames"] == 600 and len(document["readings"]) == 600
    assert document["python_threads"]["most"] > document["python_threads"]["after"]  # the pipeline's were counted
    assert json.loads(output.read_text())["growth_mib"] == document["growth_mib"]


def test_a_leak_is_found_and_ends_with_1(make_clip, shared_tiny_bundle, boxes_file, monkeypatch, capsys):
    kept = []
    clip = make_clip(4)

    def leaking(path):
        kept.append(clip.open("rb"))
        return open_source(path)

    monkeypatch.setattr("qanet.benchmarks.lab.soak.open_source", leaking)
    run = arguments(clip, shared_tiny_bundle, boxes_file, "--frames", "24", "--settle", "4", "--peak-mib", "1")
    assert main(run) == 1
    said = capsys.readouterr().out
    assert "broken: open files left behind: 7" in said and "MiB, above 1" in said
    for file in kept:
        file.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--frames", "1"], "bad --frames .expected 2 or more, got 1"),
        (["--settle", "20000"], "bad --settle .expected 0 to 19999 frames"),
        (["--growth-mib", "-1"], "bad --growth-mib"),
        (["--peak-mib", "nan"], "bad --peak-mib"),
        ([], "nothing.mp4: no such file"),
    ],
)
def test_what_cannot_be_is_told(options, message, shared_tiny_bundle, boxes_file):
    with pytest.raises(QanetError, match=message):
        main(arguments("nothing.mp4", shared_tiny_bundle, boxes_file, *options))
