"""A machine made up of two modules that count, check and defer what a GPU would do."""

import sys
from types import ModuleType

import pytest
from fake_cuda import Machine, graph_bindings
from fake_kernels import install
from fake_tensorrt import tensorrt_module

from qanet.runtime.answers.verdicts import Verdict
from qanet.runtime.cuda import device, device_path, gpu_context
from qanet.runtime.cuda.device import open_device
from qanet.runtime.cuda.gpu_context import GpuContext

CUDA_PYTHON = ("cuda", "cuda.bindings", "cuda.bindings.driver")


@pytest.fixture
def machine(monkeypatch):
    """An sm_87 with TensorRT 10.3.0 and without cuda-python, even where it is installed; afterwards the books must
    balance."""
    made = Machine()
    pycuda = ModuleType("pycuda")
    pycuda.driver = made.driver()
    modules = {"pycuda": pycuda, "pycuda.driver": pycuda.driver, "tensorrt_rtx": None, **dict.fromkeys(CUDA_PYTHON)}
    for name, module in (modules | {"tensorrt": tensorrt_module(made, "tensorrt", "10.3.0")}).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(device, "_devices", {})
    monkeypatch.setattr(gpu_context, "_shared", {})
    yield made
    gpu_context.close_shared_contexts()
    assert made.problems == []
    assert made.calls["push"] == made.calls["pop"]
    assert made.calls["mem_alloc"] + made.calls["pagelocked_empty"] - made.refused == made.calls["free"]
    assert not made.memory and not made.pending
    for what in ("runtime", "engine", "context", "stream", "event", "module"):
        assert made.calls[f"{what} created"] == made.calls[f"{what} destroyed"]


@pytest.fixture
def kernels(machine, monkeypatch):
    """The machine, with the project's kernels on it."""
    build = install(machine)
    monkeypatch.setitem(sys.modules, build.__name__, build)
    # They are asked in a test of their own: here every launch is counted.
    right = Verdict(True, "NumPy", {"crops": (0.0, 1.0)}, None, None, 0.0)
    monkeypatch.setattr(device_path, "kernels_verdict", lambda gpu: right)
    return machine


@pytest.fixture
def graphs(machine, monkeypatch):
    """The machine, with cuda-python."""
    bindings = ModuleType("cuda.bindings")
    bindings.driver = graph_bindings(machine)
    for name, module in zip(CUDA_PYTHON, (ModuleType("cuda"), bindings, bindings.driver)):
        monkeypatch.setitem(sys.modules, name, module)
    return machine


@pytest.fixture
def gpu(machine):
    """A context of the machine's GPU, closed after the test."""
    with GpuContext(open_device()) as opened:
        yield opened
