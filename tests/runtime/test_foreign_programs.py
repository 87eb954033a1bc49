"""Programs on machines that are not here: native kernels, the whole parser, and known answers that refuse an engine."""

import functools
import json
import platform
import shutil

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="graphs are compared with ONNX Runtime")
pytest.importorskip("onnx", reason="graphs are made with onnx")
from foreign_graphs import foreign_bundle, foreign_graphs
from foreign_machine import ARM, ARM_DOT_PRODUCTS, AVX2, EMULATED, FEWER_AVX2, FEWER_AVX512, SSE42, _version
from foreign_native import build_library

import qanet
from qanet import quality
from qanet.runtime import native

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def library_of(tmp_path_factory):
    """The native library of a processor; skips where it is not built and no compiler is here."""

    @functools.cache
    def built(processor):
        if processor == platform.machine():
            return native.PATH if native.available() else pytest.skip("the native library is not built")
        compiler = shutil.which(f"{processor}-linux-gnu-g++") or pytest.skip(f"no g++-{processor}-linux-gnu")
        return build_library(compiler, tmp_path_factory.mktemp("library"))

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
def bundles(tmp_path_factory):
    """A bundle as it is built where INT8 is right, and one with the graph for CPUs without VNNI as well."""
    folder, graphs = tmp_path_factory.mktemp("bundles"), foreign_graphs()
    eight = foreign_bundle(folder / "eight.qanet", {name: graphs[name] for name in ("fp32", "int8")})
    return eight, foreign_bundle(folder / "both.qanet", graphs)


@pytest.mark.parametrize(
    "machine, device, takes, auto",
    [(AVX2, "cpu", "int8-no-vnni", "fp32"), (ARM_DOT_PRODUCTS, "onnxruntime", "int8", "int8")],
    ids=str,
)
def test_known_answers_refuse_what_saturates_and_nothing_else(machine, device, takes, auto, bundles, tmp_path):
    machine.require()
    asked = [f"{bundle},{device},{kind}" for bundle, kind in zip((*bundles, bundles[1]), ("int8", "int8", "auto"))]
    eight, both, best = json.loads(machine.python("-c", LOAD, *asked, folder=tmp_path)).values()
    if machine is AVX2:  # it saturates
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
