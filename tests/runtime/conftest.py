"""A machine made up of two modules that count, check and defer what a GPU would do."""

import sys
from types import ModuleType

import pytest
from fake_cuda import Machine
from fake_tensorrt import tensorrt_module

from qanet.runtime.engines import cuda_buffers


@pytest.fixture
def machine(monkeypatch):
    """An sm_87 with TensorRT 10.3.0; afterwards the books must balance."""
    made = Machine()
    pycuda = ModuleType("pycuda")
    pycuda.driver = made.driver()
    modules = {"pycuda": pycuda, "pycuda.driver": pycuda.driver, "tensorrt_rtx": None}
    for name, module in (modules | {"tensorrt": tensorrt_module(made, "tensorrt", "10.3.0")}).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(cuda_buffers, "_gpus", {})
    yield made
    assert made.problems == []
    assert made.calls["push"] == made.calls["pop"]
    assert made.calls["mem_alloc"] + made.calls["pagelocked_empty"] - made.refused == made.calls["free"]
    assert not made.memory and not made.pending
    for what in ("runtime", "engine", "context", "stream"):
        assert made.calls[f"{what} created"] == made.calls[f"{what} destroyed"]
