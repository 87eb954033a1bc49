"""OpenVINO, ONNX Runtime and the native kernels on machines that are not here: what they run in, and what is right.

On an x86-64 CPU without VNNI, products of 8 bits are added in pairs into 16 bits that saturate: INT8 is wrong there, by
far, and right where neighbouring weights share their range. ONNX Runtime's SSE kernels and ARM's, with or without dot
products, do not saturate.
"""

import functools

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="graphs are compared with ONNX Runtime")
pytest.importorskip("onnx", reason="graphs are made with onnx")
from foreign_graphs import HEIGHT, WIDTH, foreign_graphs, worst_case
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
    ask,
)

from qanet.geometry import crop_people
from qanet.images import read_image
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
    assert error > 0.3 if (machine, runtime) in SATURATE else error < 0.1, error  # 0.57 to 0.59; 0.02, in FP16 0.05


@on_every_machine
def test_what_is_made_for_cpus_without_vnni_is_right_everywhere(answers, exact, machine, runtime):
    assert (
        relative_rms(exact["int8-no-vnni"], answers(machine, runtime).outputs["int8-no-vnni"]) < 0.1
    )  # 0.02, in FP16 0.05


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
