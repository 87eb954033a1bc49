"""OpenVINO, ONNX Runtime and the native kernels on machines that are not here: what they run in, and what is right.

On an x86-64 CPU without VNNI, products of 8 bits are added in pairs into 16 bits that saturate: INT8 is wrong there, by
far, and right where neighbouring weights share their range. ONNX Runtime's SSE kernels and ARM's, with or without dot
products, do not saturate.
"""

import functools
import json
import platform
import shutil

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="graphs are compared with ONNX Runtime")
pytest.importorskip("onnx", reason="graphs are made with onnx")
from foreign_graphs import HEIGHT, WIDTH, foreign_bundle, foreign_graphs, worst_case
from foreign_machine import (
    ARM,
    ARM_DOT_PRODUCTS,
    AVX2,
    EMULATED,
    FEWER,
    FEWER_AVX2,
    FEWER_AVX2_VNNI,
    FEWER_AVX512,
    FEWER_AVX512_VNNI,
    SSE42,
    _version,
    ask,
)
from foreign_native import build_library

import qanet
from qanet import quality
from qanet.geometry import crop_people
from qanet.images import read_image
from qanet.runtime import native
from qanet.runtime.answers.known import PICTURES
from qanet.runtime.answers.verdicts import relative_rms
from qanet.runtime.backends.onnxruntime import exact_outputs

pytestmark = pytest.mark.slow
RUNTIMES = ("openvino", "onnxruntime")
CASES = [*((m, runtime) for m in EMULATED for runtime in RUNTIMES), *((m, "openvino") for m in FEWER)]
SATURATE = {
    (SSE42, "openvino"),
    (AVX2, "openvino"),
    (AVX2, "onnxruntime"),
    (FEWER_AVX2, "openvino"),
    (FEWER_AVX512, "openvino"),
}
PAIRS = ((127, 1), (127, 2), (127, 127))  # sizes of the weights of neighbouring input channels
PHOTOGRAPH = PICTURES / "person-1.jpg"  # of known answers: a person of 288x384
SOMEBODY = np.array([[0, 0, 288, 384]], np.float32)
on_every_machine = pytest.mark.parametrize("machine, runtime", CASES, ids=lambda value: str(value))


@pytest.fixture(scope="module")
def graphs():
    return foreign_graphs() | {f"int8-{pair}": worst_case(*pair) for pair in PAIRS}


@pytest.fixture(scope="module")
def crops():
    return crop_people(read_image(PHOTOGRAPH), SOMEBODY, (HEIGHT, WIDTH))


@pytest.fixture(scope="module")
def exact(graphs, crops):
    """What each graph means, with products in floating point."""
    scores = np.ones(len(crops), np.float32)
    files = {name: model.SerializeToString() for name, model in graphs.items()}
    return {name: exact_outputs(data, crops, scores, ("logits",))["logits"] for name, data in files.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("foreign")


@pytest.fixture(scope="module")
def answers(graphs, crops, folder):
    """(machine, runtime) -> its answers, asked once."""

    @functools.cache
    def asked(machine, runtime):
        files = {name: model.SerializeToString() for name, model in graphs.items()}
        return ask(machine.require(), runtime, files, crops, folder)

    return asked


@on_every_machine
def test_fp32_is_right(answers, exact, machine, runtime):
    limit = 0.01 if answers(machine, runtime).floating_point == "f16" else 1e-4
    assert relative_rms(exact["fp32"], answers(machine, runtime).outputs["fp32"]) < limit


@on_every_machine
def test_int8_saturates_where_there_is_no_vnni(answers, exact, machine, runtime):
    error = relative_rms(exact["int8"], answers(machine, runtime).outputs["int8"])
    assert error > 0.3 if (machine, runtime) in SATURATE else error < 0.05, error  # 0.57 to 0.59, or 0.002 to 0.02


@on_every_machine
def test_what_is_made_for_cpus_without_vnni_is_right_everywhere(answers, exact, machine, runtime):
    assert relative_rms(exact["int8-no-vnni"], answers(machine, runtime).outputs["int8-no-vnni"]) < 0.05  # 0.02 at most


@on_every_machine
def test_neighbours_that_sum_to_128_are_the_most_that_cannot_saturate(answers, exact, machine, runtime):
    told = answers(machine, runtime)
    most, more, twice = (relative_rms(exact[f"int8-{pair}"], told.outputs[f"int8-{pair}"]) for pair in PAIRS)
    if (machine, runtime) in SATURATE:
        assert most == 0 and more > 0.001 and twice > 0.5, (most, more, twice)
    else:
        assert max(most, more, twice) <= (0.05 if told.floating_point == "f16" else 0), (most, more, twice)


@pytest.mark.parametrize(
    "machine, kernels",
    [
        (SSE42, {"jit_sse42_I8:u8", "jit_sse42_1x1_I8:u8"}),
        (AVX2, {"jit_avx2_I8:u8", "jit_avx2_1x1_I8:u8"}),
        (ARM, {"acl_i8:i8"}),
        (ARM_DOT_PRODUCTS, {"acl_i8:i8"}),
        (FEWER_AVX2, {"jit_avx2_I8:u8", "jit_avx2_1x1_I8:u8"}),
        (FEWER_AVX2_VNNI, {"brgconv_avx2_1x1_I8:u8", "brgconv_avx2_dw_I8:u8"}),
        (FEWER_AVX512, {"brgconv_avx512_1x1_I8:u8", "jit_avx512_I8:u8"}),
        (FEWER_AVX512_VNNI, {"brgconv_avx512_1x1_I8:u8", "brgconv_avx512_dw_I8:u8"}),
    ],
    ids=lambda value: "" if isinstance(value, set) else str(value),  # a set's order changes from process to process
)
def test_openvino_computes_int8_in_the_kernels_of_the_machine(answers, machine, kernels):
    kinds = answers(machine, "openvino").kinds
    assert {kind for kind in kinds["int8"] if "i8" in kind.lower()} == kernels
    assert not [kind for kind in kinds["fp32"] if "i8" in kind.lower()]
    assert sum(kinds["int8"].values()) == sum(kinds["fp32"].values())


@pytest.mark.parametrize(
    "machine, sixteen_bits, name",
    [(SSE42, None, "Westmere"), (AVX2, None, "Haswell"), (ARM, None, "0xd03"), (ARM_DOT_PRODUCTS, "FP16", "0xd0c")],
    ids=str,
)
def test_what_openvino_says_of_the_machine(answers, machine, sixteen_bits, name):
    told = answers(machine, "openvino")
    assert set(told.capabilities) & {"FP16", "BF16"} == ({sixteen_bits} if sixteen_bits else set())
    assert {"FP32", "INT8"} <= set(told.capabilities) and name in told.device
    assert told.floating_point == ("f16" if sixteen_bits else "f32")


def test_fewer_instructions_here_answer_as_the_emulated_machine_does(answers):
    """On an EPYC to the last bit; another CPU's caches may change the order of a sum in float."""
    here, there = answers(FEWER_AVX2, "openvino"), answers(AVX2, "openvino")
    assert here.kinds == there.kinds
    for name, logits in there.outputs.items():
        assert relative_rms(logits, here.outputs[name]) < 0.02, name


@pytest.fixture(scope="module")
def library_of(folder):
    """The native library of a processor; skips where it is not built and no compiler is here."""

    @functools.cache
    def built(processor):
        if processor == platform.machine():
            return native.PATH if native.available() else pytest.skip("the native library is not built")
        compiler = shutil.which(f"{processor}-linux-gnu-g++") or pytest.skip(f"no g++-{processor}-linux-gnu")
        return build_library(compiler, folder)

    return built


TAIL = """
import json
import numpy as np
from qanet.runtime import native
logits = np.random.default_rng(0).normal(0, 2, (1, 13, 24, 18)).astype(np.float32)
scored = native.pixel_score(logits, [[3, 2, 60, 80]], (96, 72))
print(json.dumps([native.lanes(), scored.labels[0].tolist(), scored.part_scores[0].tolist()]))
"""


@pytest.mark.parametrize("machine", [SSE42, AVX2, ARM], ids=str)
def test_the_native_kernels_take_the_vectors_of_the_machine(machine, library_of, tmp_path):
    machine.require()
    told = machine.python("-c", TAIL, folder=tmp_path, library=library_of(machine.processor))
    lanes, labels, scores = json.loads(told)
    logits = np.random.default_rng(0).normal(0, 2, (1, 13, 24, 18)).astype(np.float32)
    expected = quality.pixel_score(logits, [[3, 2, 60, 80]], (96, 72))
    assert lanes == ([8, 4] if machine is AVX2 else [4])
    assert np.mean(np.array(labels) == expected.labels[0]) > 0.999
    assert np.allclose(scores, expected.part_scores[0], atol=1e-4)


PARSE = """
import json
import sys
import numpy as np
import qanet
parser = qanet.load(sys.argv[1], device="cpu", threads=1)
result = parser(np.load(sys.argv[2]), boxes=json.loads(sys.argv[3]))
print(json.dumps([result.labels.tolist(), [person.quality for person in result]]))
"""


@pytest.mark.parametrize("machine", [SSE42, ARM], ids=str)
def test_the_whole_parser(machine, shared_tiny_bundle, people, tmp_path):
    machine.require()
    np.save(tmp_path / "image.npy", people(0))
    boxes = people.boxes(0)
    arguments = (shared_tiny_bundle, tmp_path / "image.npy", json.dumps(boxes))
    told = machine.python("-c", PARSE, *arguments, folder=tmp_path)
    labels, qualities = json.loads(told)
    expected = qanet.load(shared_tiny_bundle, device="cpu", threads=1)(people(0), boxes=boxes)
    assert np.mean(np.array(labels) == expected.labels) > 0.99
    assert qualities == pytest.approx([person.quality for person in expected], abs=0.01)


def test_a_program_that_fails_quotes_its_error(tmp_path):
    AVX2.require()
    with pytest.raises(AssertionError, match="avx2: the program ended with 1: .*no such thing"):
        AVX2.python("-c", "raise SystemExit('no such thing')", folder=tmp_path)


LOAD = """
import json
import sys
import warnings
import qanet
from qanet.errors import QanetError, QanetWarning

told = {}
for name in sys.argv[1:]:
    bundle, device, precision = name.split(",")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", QanetWarning)
        try:
            engine = qanet.load(bundle, device=device, precision=precision, threads=1).engine
            told[name] = [engine.origin.graph, [str(warning.message) for warning in said]]
        except QanetError as error:
            told[name] = [str(error), []]
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def bundles(graphs, folder):
    """A bundle as it is built where INT8 is right, and one with the graph for CPUs without VNNI as well."""
    eight = foreign_bundle(folder / "eight.qanet", {name: graphs[name] for name in ("fp32", "int8")})
    return eight, foreign_bundle(
        folder / "both.qanet", {name: graphs[name] for name in ("fp32", "int8", "int8-no-vnni")}
    )


@pytest.mark.parametrize(
    "machine, device, takes, auto",
    [
        (AVX2, "cpu", "int8-no-vnni", "fp32"),
        (AVX2, "onnxruntime", "int8-no-vnni", "fp32"),
        (ARM_DOT_PRODUCTS, "onnxruntime", "int8", "int8"),
    ],
    ids=str,
)
def test_known_answers_refuse_what_saturates_and_nothing_else(machine, device, takes, auto, bundles, tmp_path):
    machine.require()
    asked = [f"{bundle},{device},{kind}" for bundle, kind in zip((*bundles, bundles[1]), ("int8", "int8", "auto"))]
    eight, both, best = json.loads(machine.python("-c", LOAD, *asked, folder=tmp_path)).values()
    if (machine, "openvino" if device == "cpu" else device) in SATURATE:
        assert "int8 of eight answers wrongly" in eight[0] and "--precision int8 (for this CPU)" in eight[0]
    else:
        assert eight == ["int8", []]
    assert both == [takes, []] and best == [auto, []]


LOOK = """
import os
import platform
print(platform.machine(), "OPENBLAS_CORETYPE" in os.environ, open("/proc/cpuinfo").read())
"""


@pytest.mark.parametrize("machine", EMULATED, ids=str)
def test_a_program_sees_the_machine_and_nothing_of_this_one(machine, tmp_path, monkeypatch):
    """Not its CPU's flags, nor variables that choose instructions for libraries."""
    machine.require()
    monkeypatch.setenv("OPENBLAS_CORETYPE", "SkylakeX")
    told = machine.python("-c", LOOK, folder=tmp_path)
    flags = told.split()
    assert flags[:2] == [machine.processor, "False"] and not [flag for flag in flags if "vnni" in flag]
    assert [flag in flags for flag in ("sse4_2", "avx2", "asimd", "asimddp")] == [
        machine in (SSE42, AVX2),
        machine is AVX2,
        machine in (ARM, ARM_DOT_PRODUCTS),
        machine is ARM_DOT_PRODUCTS,
    ]


def test_a_machine_that_cannot_be_had_says_why(monkeypatch, tmp_path):
    monkeypatch.setattr("foreign_machine.platform.machine", lambda: "x86_64")
    monkeypatch.setattr("foreign_machine._flags_here", lambda: ["avx2"])
    assert FEWER_AVX2.missing() == ""
    assert FEWER_AVX512.missing() == "fewer_avx512: this CPU has no avx512bw"
    monkeypatch.setattr("foreign_machine.arm_root.ready", lambda: False)
    emulator = tmp_path / "qemu-aarch64"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ARM.missing() == "no qemu-aarch64: install the Debian package qemu-user"
    for version, reason in (("6.2.0", f"{emulator} has no AVX: 7.2 is the first that does"), ("9.0.1", None)):
        emulator.write_text(f"#!/bin/sh\necho qemu-aarch64 version {version}\n")
        emulator.chmod(0o755)
        _version.cache_clear()
        assert ARM.missing() == (reason or "no programs for ARM: make arm")
    _version.cache_clear()
    monkeypatch.setattr("foreign_machine.platform.machine", lambda: "aarch64")
    assert AVX2.missing() == "avx2 needs an x86-64 host"
