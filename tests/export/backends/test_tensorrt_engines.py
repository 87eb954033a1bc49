"""Engines of TensorRT itself, which a GPU builds: here its branches run, on TensorRT-RTX under its name."""

import sys

import pytest
from engine_graphs import needs_rtx

from qanet.errors import QanetError
from qanet.export.backends import tensorrt, tensorrt_library
from qanet.export.backends.census import check_delivered
from qanet.export.backends.tensorrt_options import Options


def test_tensorrt_without_a_driver_says_so(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(tensorrt_library.ctypes, "CDLL", missing)
    with pytest.raises(QanetError, match="no NVIDIA driver on this machine"):
        tensorrt_library.this_gpu()


def test_tensorrt_missing_says_how_to_install_it(graphs, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(QanetError, match="tensorrt is not installed.*qanet-edge.tensorrt"):
        tensorrt.build(graphs["fp32"], runtime="tensorrt")


class OldTensorrt:
    __version__ = "8.6.1"


def test_a_tensorrt_without_strong_typing_is_too_old(graphs, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", OldTensorrt)
    with pytest.raises(QanetError, match="too old .expected 10.3 or newer, got 8.6.1"):
        tensorrt.build(graphs["fp32"], runtime="tensorrt")


class RtxAsTensorrt:
    """TensorRT-RTX under TensorRT's name, bound to one GPU generation as TensorRT is bound to its GPU."""

    __version__ = "10.3.0"

    def __getattr__(self, name):
        import tensorrt_rtx

        return getattr(tensorrt_rtx, name)

    class Builder:
        def __init__(self, logger):
            import tensorrt_rtx

            self.real, self.generation = tensorrt_rtx.Builder(logger), tensorrt_rtx.ComputeCapability.SM86

        def create_builder_config(self):
            config = self.real.create_builder_config()
            config.num_compute_capabilities = 1
            config.set_compute_capability(self.generation, 0)
            return config

        def __getattr__(self, name):
            return getattr(self.real, name)


@needs_rtx
@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_the_path_of_tensorrt_with_its_timing_cache(graphs, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorrt", RtxAsTensorrt())
    monkeypatch.setattr(tensorrt_library, "this_gpu", lambda: "sm_86")
    with pytest.raises(QanetError, match="builds on the GPU that will run the engine .expected sm_86, got sm_87"):
        tensorrt.build(graphs["fp32"], runtime="tensorrt", targets=["sm_87"])
    options = Options(timing_cache=tmp_path / "cache", tf32=True)
    for _ in range(2):  # without a cache file, then with one
        engine = tensorrt.build(graphs["fp16"], runtime="tensorrt", options=options)
        assert (engine.runtime, engine.version, engine.targets) == ("tensorrt", "10.3.0", ("sm_86",))
        assert (tmp_path / "cache").exists()
        check_delivered(engine.census, "fp16")  # no driver, no inspector: from the log
