"""`qanet benchmark --video`: rate, processor time of the networks against the rest, memory, and the first result."""

import json
import subprocess
import time

import pytest

from qanet.__main__ import main
from qanet.benchmarks.costs import first_result
from qanet.benchmarks.video import NetworkClock, Run, figures
from qanet.runtime.video.summary import Summary


def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


class Request:
    """What runs a network, as OpenVINO has it."""

    def infer(self, seconds):
        burn(seconds)
        return "outputs"


def task(folder, name, spent_ns):
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "schedstat").write_text(f"{spent_ns} 17 3\n")


def test_calls_and_the_pool_count_and_nothing_else(tmp_path):
    task(tmp_path, "1", 5_000_000_000)
    infer = Request.infer

    def open_networks():
        task(tmp_path, "2", 1_000_000_000)

    clock = NetworkClock(open_networks, Request, tmp_path)
    task(tmp_path, "3", 0)  # a thread of somebody else
    for _ in range(2):  # each time counts for itself
        with clock:
            assert Request().infer(0.02) == "outputs"
            burn(0.05)
            for name, spent_ns in (("1", 9e9), ("2", 1_250_000_000), ("3", 7e9)):
                task(tmp_path, name, int(spent_ns))
        assert clock.calls == 1 and clock.cpu_s == pytest.approx(0.27, abs=0.01)
        assert Request.infer is infer
        task(tmp_path, "2", 1_000_000_000)


def test_a_failing_network_leaves_the_class_as_it_was(tmp_path):
    infer = Request.infer
    clock = NetworkClock(lambda: None, Request, tmp_path / "not there")
    with pytest.raises(TypeError), clock:
        Request().infer()
    assert Request.infer is infer and clock.calls == 1


def run(frames=10, seconds=2.0, cpu_s=3.0, networks_cpu_s=2.4):
    summary = Summary(frames=frames, people_by_frame=[2] * frames, seconds=seconds, detections=4)
    summary.stages_ms = {"engine": [1.0, 3.0]}
    return Run(summary, cpu_s, networks_cpu_s, 14)


def test_figures_are_medians_over_the_runs():
    found = figures([run(seconds=2.0), run(seconds=1.0, cpu_s=2.0), run(seconds=4.0)])
    assert found["frames_per_second"] == {"median": 5.0, "all": [5.0, 10.0, 2.5]}
    assert found["cpu_ms_per_frame"]["all"] == [300.0, 200.0, 300.0]
    assert found["networks_share"]["median"] == pytest.approx(0.8) and found["busy_cpus"]["median"] == 1.5
    assert (found["frames"], found["people"], found["detections"], found["network_calls"]) == (10, 20, 4, 14)
    assert found["stages_ms"]["engine"]["n"] == 6 and found["stages_ms"]["engine"]["p50"] == 2.0


def test_the_first_result_counts_from_the_start_of_the_process():
    asked = []

    def spawn(arguments):
        asked.append(arguments)
        return f"a note\nfirst result {time.monotonic() + 1.5}\n"

    found = first_result(["clip.mp4", "--model", "m"], 3, spawn)
    assert found["error"] is None and found["median_s"] == pytest.approx(1.5, abs=0.05) and len(found["all_s"]) == 3
    assert asked[0][2:6] == ["parse", "clip.mp4", "--model", "m"] and "--results" in asked[0]


def _fails(arguments):
    raise subprocess.CalledProcessError(2, arguments, stderr="error: no model\n")


@pytest.mark.parametrize(
    ("spawn", "error"),
    [
        (lambda arguments: "nothing", "IndexError"),
        (_fails, "error: no model"),
        (lambda a: "first result x", "ValueError"),
    ],
)
def test_a_process_without_a_result_is_told(spawn, error):
    found = first_result(["clip.mp4"], 2, spawn)
    assert found["median_s"] is None and error in found["error"]


def test_the_whole_command(make_clip, shared_tiny_bundle, boxes_file, capsys):
    options = ["--boxes", str(boxes_file), "--threads", "1", "--device", "cpu", "--rounds", "2", "--cold-starts", "1"]
    assert main(["benchmark", str(shared_tiny_bundle), "--video", str(make_clip(6)), *options, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["frames"], document["people"], document["runs"]) == (6, 12, 2)
    assert document["network_calls"] == 6 and 0 < document["networks_share"]["median"] < 1
    assert document["first_result"]["error"] is None and document["first_result"]["median_s"] > 0.05
    assert document["peak_rss_mib"] > 10 and {"decode", "crop", "engine", "tail", "write"} <= set(document["stages_ms"])


def test_the_text_says_what_was_measured(make_clip, shared_tiny_bundle, capsys):
    run = ["benchmark", str(shared_tiny_bundle), "--video", str(make_clip(2)), "--whole-image", "--threads", "1"]
    assert main([*run, "--rounds", "1", "--cold-starts", "1", "--precision", "fp32"]) == 0
    said = capsys.readouterr().out
    assert "frames/s, median of 1 runs" in said and "in the networks" in said and "first result" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "fp32,int8"], "--video takes one of --precision"),
        (["--tail", "kernel,graph"], "--video takes one of --tail"),
        (["--rounds", "0"], "bad --rounds"),
    ],
)
def test_one_of_each(options, message, make_clip, shared_tiny_bundle, capsys):
    assert main(["benchmark", str(shared_tiny_bundle), "--video", str(make_clip(1)), *options]) == 2
    assert message in capsys.readouterr().err
