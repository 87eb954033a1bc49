"""A build in a process of its own: the same engine, the same errors, and a death that is told."""

import os
import signal
import subprocess
import sys

import pytest
from engine_graphs import make_graph, needs_rtx
from rtx_header import plan_targets

from qanet.errors import QanetError
from qanet.export.backends import child, tensorrt
from qanet.export.backends.tensorrt_options import Options, low_memory


@needs_rtx
def test_an_engine_built_apart_is_the_one_built_here(graphs):
    lines, options = [], low_memory(Options(profile=(2, 2, 2)))
    call = {"runtime": "tensorrt-rtx", "targets": ["sm_86"], "options": options, "outputs": ("logits",)}
    apart = child.build_apart(graphs["fp16"], report=lines.append, **call)
    here = tensorrt.build(graphs["fp16"], **call)
    assert plan_targets(apart.data) == ("sm_86",) and len(lines) == 2
    for name in ("census", "batches", "inputs", "outputs", "targets", "version", "messages", "options", "stripped"):
        assert getattr(apart, name) == getattr(here, name), name


@needs_rtx
def test_its_errors_are_the_parents():
    graph = make_graph(first="Transpose").SerializeToString()
    with pytest.raises(QanetError, match=r"cannot be parsed at node 0 'transpose'") as told:
        child.build_apart(graph, runtime="tensorrt-rtx", targets=None, options=Options(), outputs=None)
    assert told.value.expected == "operators and types that TensorRT takes"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})",
            "batches .*2, 2, 2.* was killed .got SIGKILL, as when memory runs out.; next: close what else runs",
        ),
        (f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})", "died .got SIGSEGV: nothing on stderr"),
        ("raise SystemExit('the library is torn')", "died .got exit code 1: the library is torn"),
    ],
)
def test_a_death_is_told(graphs, monkeypatch, script, message):
    real = subprocess.Popen

    def instead(command, **options):
        assert options["env"]["CUDA_MODULE_LOADING"] == "LAZY" and options["env"]["PATH"] == os.environ["PATH"]
        return real([sys.executable, "-c", script], **options)

    monkeypatch.setattr(subprocess, "Popen", instead)
    with pytest.raises(QanetError, match=message):
        child.build_apart(
            graphs["fp16"], runtime="tensorrt", targets=None, options=Options(profile=(2, 2, 2)), outputs=None
        )
