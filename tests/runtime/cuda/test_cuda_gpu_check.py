"""`make gpu-check` as far as it goes without a GPU: made-up programs for its steps, the made-up GPU for its timings."""

import json
import subprocess
import sys

import numpy as np
import pytest
from toy_engines import KERNEL_TAIL, make_bundle

from qanet.benchmarks.gpu_check import __main__ as command
from qanet.benchmarks.gpu_check import __main__ as text
from qanet.benchmarks.gpu_check import measure as engines
from qanet.benchmarks.gpu_check import measure as kernels
from qanet.benchmarks.gpu_check import steps as tools
from qanet.benchmarks.gpu_check.steps import (
    Answer,
    Refused,
    Step,
    answer_line,
    find_gpu,
    parse_answer,
    run_command,
    run_step,
)
from qanet.benchmarks.score_cases import Case
from qanet.errors import QanetError
from qanet.runtime.backends.tensorrt.engine import engine_from_bundle
from qanet.runtime.parser import Parser

SIZE = (30, 40)
CASE = Case("two people", "people", 3, (4, 3), SIZE, ((2.25, 3.5, 14.25, 19.5), (18.0, 4.0, 37.0, 27.0)))


class Programs:
    """Answers a command by the first key all of whose parts, between bars, occur in it; "ok" for the rest."""

    def __init__(self, **answers):
        self.answers, self.commands = {tuple(key.split("|")): value for key, value in answers.items()}, []

    def __call__(self, arguments, limit_s):
        self.commands.append(" ".join(arguments))
        for words, answer in self.answers.items():
            if all(word in self.commands[-1] for word in words):
                return answer if isinstance(answer, Answer) else Answer(0, answer)
        return Answer(0, "ok")


KERNELS = {
    "copy_bytes_per_second": 3e11,
    "rows": [
        {
            "case": "c",
            "kernel": "tail float32",
            "status": "ok",
            "reason": None,
            "cold_ms": {"p50": 0.2},
            "warm_ms": {"p50": 0.1},
            "floor_ms": 0.1,
            "cold_times_floor": 2.0,
            "warm_times_floor": 1.0,
            "torch": None,
            "torch_ms": 10.0,
            "speed_up": 50.0,
        },
        {"case": "c", "kernel": "crop", "status": "refused", "reason": "crops differ by 9 grey levels"},
    ],
}
PARSER = {
    "runtime": "tensorrt",
    "precision": "fp16",
    "graph_batches": [1, 8],
    "rows": [
        {
            "people": 5,
            "latency_ms": {"p50": 1.5, "p90": 2.0, "p99": 3.0, "n": 9},
            "stages_ms": {"engine": 1.0},
            "labels_agree": 0.995,
        }
    ],
}
GOOD = {
    "-m gpu -q": "31 passed, 2 skipped in 9 s",
    "compute-sanitizer": "8 passed\n========= ERROR SUMMARY: 0 errors",
    "--step kernels": f"a library talks\n{answer_line(KERNELS)}",
    "--step parser": answer_line(PARSER),
}


@pytest.fixture
def on_a_gpu(monkeypatch):
    monkeypatch.setattr(command, "find_gpu", lambda: ("NVIDIA Made-up 9000", "sm_90"))
    monkeypatch.setattr(tools.shutil, "which", lambda name, path=None: f"/bin/{name}")
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda name: None)


def run(tmp_path, **answers):
    """(exit code, document, table) of a whole check over made-up programs."""
    programs = Programs(**answers, **{key: value for key, value in GOOD.items() if key not in answers})
    code = command.main(["--output", str(tmp_path)], programs)
    (written,) = tmp_path.glob("*.json")
    assert written.name.startswith("nvidia-made-up-9000-2")
    return code, json.loads(written.read_text()), written.with_suffix(".txt").read_text(), programs.commands


def statuses(document):
    return {step["name"]: step["status"] for step in document["steps"]}


@pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")
def test_without_a_gpu_it_says_so_in_one_line_with_exit_code_2():
    module = [sys.executable, "-m", "qanet.benchmarks.gpu_check"]
    done = subprocess.run(module, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: no NVIDIA GPU in this machine") and done.stderr.count("\n") == 1


def test_a_whole_check_writes_what_it_found(on_a_gpu, tmp_path):
    code, document, table, commands = run(tmp_path)
    assert code == 0 and set(statuses(document).values()) == {"ok"}
    assert (document["gpu"], document["target"]) == ("NVIDIA Made-up 9000", "sm_90")
    parsers = [name for name in statuses(document) if name.startswith("parser")]
    assert parsers == [f"parser {r} {p}" for r in ("tensorrt", "tensorrt-rtx") for p in ("fp32", "fp16", "int8")]
    assert sum("pip install" in line for line in commands) == len(tools.PACKAGES)
    builds = [line for line in commands if "qanet build" in line]
    assert all(("--target sm_90" in line) == ("tensorrt-rtx" in line) for line in builds) and len(builds) == 6
    for words in (
        "NVIDIA Made-up 9000, sm_90",
        "tail float32",
        "refused: crops differ by 9 grey levels",
        "300 GB/s",
        "99.50%",
        "31, skipped 2",
        "racecheck",
    ):
        assert words in table


@pytest.mark.parametrize(
    "broken, step, words",
    [
        ({"pip install|pycuda": Answer(1, "error: nvcc: not found")}, "packages", "pycuda: error: nvcc: not found"),
        ({"-m gpu -q": Answer(1, "E   boom\n1 failed, 3 passed")}, "tests", "the tests ended with 1"),
        ({"-m gpu -q": "5 skipped in 1 s"}, "tests", "no test passed"),
        ({"--tool racecheck": Answer(3, "========= Race reported")}, "racecheck", "Race reported"),
        ({"--tool memcheck": "no tests ran"}, "memcheck", "no test passed under memcheck"),
        ({"--step kernels": Answer(-11, "")}, "kernels", "kernels ended with -11"),
        ({"--step kernels": Answer(None, "no end after 1800 s")}, "kernels", "no end after"),
        ({"--step kernels": "nothing of the kind"}, "kernels", "printed no result"),
        (
            {"--step parser|tensorrt.qanet|int8": Answer(2, "error: refuses the engine")},
            "parser tensorrt int8",
            "refuses the engine",
        ),
    ],
)
def test_a_step_that_fails_is_told_and_the_rest_goes_on(on_a_gpu, tmp_path, broken, step, words):
    code, document, table, _ = run(tmp_path, **broken)
    failed = [report for report in document["steps"] if report["status"] == "failed"]
    assert code == 1 and [report["name"] for report in failed] == [step]
    assert words in failed[0]["message"] and len(document["steps"]) == 14 and "failed" in table


def test_what_a_machine_does_not_have_is_no_failure(on_a_gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(tools.shutil, "which", lambda name, path=None: None)
    refusal = Answer(2, "error: TensorRT is not installed; next: pip install tensorrt")
    code, document, table, commands = run(
        tmp_path, **{"pip install| tensorrt": Answer(1, "no such wheel"), "qanet build|tensorrt.qanet": refusal}
    )
    assert code == 0 and not any(line.startswith("None") for line in commands)
    found = statuses(document)
    assert {name for name, status in found.items() if status == "refused"} == {
        "memcheck",
        "racecheck",
        "build tensorrt",
    }
    assert "parser tensorrt fp32" not in found and found["parser tensorrt-rtx fp32"] == "ok"
    assert "TensorRT is not installed" in table and "no such wheel" in table
    assert any(line.endswith("nvidia-cuda-nvrtc") for line in commands)  # the kernels need a compiler


def test_programs_that_do_not_start_or_do_not_end_have_no_exit_code():
    assert run_command(["/there/is/no/such/program"], 5).code is None
    late = run_command([sys.executable, "-c", "print('begun', flush=True); import time; time.sleep(60)"], 1)
    assert late.code is None and "begun" in late.output and "no end after 1 s" in late.output
    both = run_command([sys.executable, "-c", "import sys; print(1); print(2, file=sys.stderr); sys.exit(4)"], 60)
    assert both.code == 4 and sorted(both.output.split()) == ["1", "2"]


def test_whatever_a_step_raises_becomes_its_message():
    def fail(error):
        raise error

    for error, status, words in (
        (QanetError("no engine", expected="one", got="none"), "failed", "no engine (expected one, got none)"),
        (Refused("not here"), "refused", "not here"),
        (KeyError("x"), "failed", "KeyError: 'x'"),
    ):
        report = run_step(Step("a step", lambda error=error: fail(error)))
        assert (report["status"], report["message"], report["result"]) == (status, words, None)
    assert parse_answer(answer_line({"a": [1]}), "a step") == {"a": [1]}


@pytest.fixture
def small(kernels, monkeypatch):
    """The made-up GPU, and a case that it does in no time."""
    kernels.image_size = SIZE
    module = sys.modules["qanet.benchmarks.gpu_check.measure"]
    monkeypatch.setattr(module, "all_cases", lambda: [CASE])
    monkeypatch.setattr(module, "CROP_HW", (16, 12))
    monkeypatch.setattr(module, "_torch_ms", lambda case, repeats: 500.0)
    return kernels


def test_kernels_are_measured_against_their_floor_and_torch(small):
    result = kernels.measure(repeats=4, copy_mib=1)
    rows = {row["kernel"]: row for row in result["rows"]}
    assert list(rows) == ["tail float32", "tail float16", "crop"]
    assert {row["status"] for row in rows.values()} == {"ok"} and result["copy_bytes_per_second"] > 0
    single, half = rows["tail float32"], rows["tail float16"]
    assert single["floor_bytes"] - half["floor_bytes"] == 2 * 3 * 4 * 3 * 2  # the logits' other two bytes
    assert single["cold_ms"]["n"] == 4 and single["speed_up"] == 500 / single["cold_ms"]["p50"]
    assert rows["crop"]["floor_bytes"] > 2 * 16 * 12 * 3 and "speed_up" not in rows["crop"]
    document = {
        "gpu": "g",
        "target": "sm_87",
        "date": "d",
        "steps": [
            {"name": "kernels", "status": "ok", "seconds": 1, "message": "", "result": json.loads(json.dumps(result))}
        ],
    }
    assert text.render(document).count("two people") == 3


def test_a_kernel_whose_answer_is_wrong_is_not_timed(small):
    right = small.kernels["pixel_score_f32"]

    def wrong(machine, *arguments):
        right(machine, *arguments)
        labels = machine.at(arguments[10], np.uint8, 20)
        labels[:] = 2 - labels % 3

    small.kernels["pixel_score_f32"] = wrong
    rows = {row["kernel"]: row for row in kernels.measure(repeats=3, copy_mib=1)["rows"]}
    assert rows["tail float32"]["status"] == "refused" and "labels differ" in rows["tail float32"]["reason"]
    assert "cold_ms" not in rows["tail float32"] and rows["tail float16"]["status"] == "ok"


def test_without_torch_on_the_gpu_the_rest_stands(small, monkeypatch):
    def missing(case, repeats):
        raise RuntimeError("PyTorch has no CUDA here")

    monkeypatch.setattr(sys.modules["qanet.benchmarks.gpu_check.measure"], "_torch_ms", missing)
    rows = kernels.measure(repeats=3, copy_mib=1)["rows"]
    assert all(row["speed_up"] is None and "no CUDA here" in row["torch"] for row in rows if "tail" in row["kernel"])


def test_a_parser_is_timed_stage_by_stage_and_compared(kernels, graphs, tmp_path):
    kernels.image_size = SIZE
    made = make_bundle(tmp_path)
    made.manifest |= {"pixel_score_threshold": 0.2, "qam_weights": [1, 0.5, 3]}
    image = np.random.default_rng(7).integers(0, 256, (*SIZE, 3), np.uint8)
    boxes = np.array([[2, 2, 12, 16], [14, 4, 24, 20], [26, 6, 38, 27]], np.float32)
    with engine_from_bundle(made, "fp16", KERNEL_TAIL) as engine:
        parser, reference = Parser(made, engine), Parser(made, engine)
        reference._device_path = None
        result = engines.measure_parser(parser, reference, image, boxes, repeats=4)
    assert (result["runtime"], result["precision"], result["graph_batches"]) == ("tensorrt", "fp16", [1, 4])
    assert [row["people"] for row in result["rows"]] == [1, 3]
    for row in result["rows"]:
        assert row["latency_ms"]["n"] == 4 and row["labels_agree"] == 1
        assert {"crop", "engine", "tail"} <= row["stages_ms"].keys()


def test_the_made_up_frame_has_people_inside_it():
    image, boxes = engines.made_up_frame()
    assert image.shape == (1080, 1920, 3) and image.dtype == np.uint8 and len(boxes) == 5
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= [1920, 1080]).all()
