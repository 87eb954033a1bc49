"""The CUDA layer on what it is written for: the real libraries have the names, and a real GPU gives the numbers."""

import importlib.util
import warnings

import numpy as np
import pytest
from golden_cases import PIXEL_SCORE_CASES, assert_golden, read_case

from qanet import quality
from qanet.errors import QanetError
from qanet.runtime import native
from qanet.runtime.cuda.crop import crop_people
from qanet.runtime.cuda.device import open_device
from qanet.runtime.cuda.gpu_context import GpuContext, Tensor, close_shared_contexts, shared_context
from qanet.runtime.cuda.graph import Replay, bindings
from qanet.runtime.cuda.tail import pixel_score, score_people
from qanet.runtime.kernels import choose_kernels

SIZE, BOXES = (240, 320), np.array([[10, 20, 150, 230], [-400, 0, -300, 50], [100, -30, 330, 260]], np.float32)


@pytest.fixture(scope="module")
def device():
    """The first GPU; skips where there is none or the kernels cannot be compiled for it."""
    try:
        with shared_context().active("loading the kernels"):
            shared_context().load("crop", "pixel_score")
    except QanetError as error:
        pytest.skip(f"needs an NVIDIA GPU with its driver, PyCUDA and a compiler: {error}")
    yield open_device()
    close_shared_contexts()


@pytest.mark.skipif(not importlib.util.find_spec("cuda"), reason="cuda-python is not installed")
def test_every_name_of_cuda_python_that_is_called_exists():
    names = (
        "CUstream CUstreamCaptureMode cuStreamBeginCapture cuStreamEndCapture cuGraphInstantiate cuGraphLaunch "
        "cuGraphDestroy cuGraphExecDestroy cuGetErrorName cuGetErrorString"
    )
    assert [name for name in names.split() if not hasattr(bindings(), name)] == []
    assert bindings().CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL is not None


@pytest.mark.gpu
def test_every_name_of_pycuda_that_is_called_exists(device):
    names = {
        device.driver: "Error MemoryError init Device Context Stream Event event_flags mem_alloc pagelocked_empty "
        "memcpy_htod_async memcpy_dtoh_async memcpy_dtod_async memset_d8_async module_from_buffer",
        device.driver.Stream: "handle synchronize wait_for_event",
        device.driver.Event: "record synchronize query time_since",
        device.driver.Function: "prepare prepared_async_call",
        device.driver.Module: "get_function",
        device.driver.event_flags: "DEFAULT DISABLE_TIMING",
        device.driver.Context: "push pop detach",
    }
    assert [name for owner, listed in names.items() for name in listed.split() if not hasattr(owner, name)] == []


@pytest.mark.gpu
@pytest.mark.parametrize("name", PIXEL_SCORE_CASES)
def test_golden_cases(device, golden, name):
    arguments, case = read_case(golden, name)
    assert_golden(pixel_score(**arguments), case)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_labels_agree_with_the_reference_and_repeat_to_the_bit(device, dtype):
    smooth = np.random.default_rng(0).normal(0, 4, (3, 20, 6, 5)).repeat(8, 2).repeat(8, 3).astype(dtype)
    expected = quality.pixel_score(smooth, BOXES, SIZE)
    got, again = (pixel_score(smooth, BOXES, SIZE) for _ in range(2))
    for index in range(3):
        if expected.labels[index].size:
            assert np.mean(got.labels[index] == expected.labels[index]) > 0.9999
        assert np.array_equal(got.labels[index], again.labels[index])
    np.testing.assert_allclose(got.pixel_scores, expected.pixel_scores, atol=1e-5)
    assert np.array_equal(got.part_scores, again.part_scores)


@pytest.mark.gpu
def test_crops_equal_the_reference(device):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    crops = crop_people(image, BOXES, (64, 48))
    off = np.abs(crops.astype(int) - choose_kernels().crop_people(image, BOXES, (64, 48)))
    assert off.max() <= (1 if native.available() else 8) and off.mean() < 1  # OpenCV's weights are 1/32 of a pixel


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_logits_on_the_gpu_that_are_not_finite_are_refused(device, dtype):
    logits = np.random.default_rng(2).normal(0, 4, (3, 13, 16, 12)).astype(dtype)
    gpu = shared_context()
    with gpu.active("testing"), Tensor(gpu, "test.logits", logits.shape, dtype) as tensor:
        for person in (None, 0, 1, None):  # the second lies outside the image
            values = logits.copy()
            if person is not None:
                values[person, 12, 15, 10:] = np.nan, -np.inf
            tensor.upload(values)
            with score_people(gpu, tensor.first(3), BOXES, SIZE) as scored:
                if person is None:
                    assert np.isfinite(scored.download().pixel_scores).all()
                    continue
                with pytest.raises(QanetError, match="^logits are not finite .*got 2 nan or infinite"):
                    scored.download()


@pytest.mark.gpu
def test_a_graph_replays_copies(device):
    if not importlib.util.find_spec("cuda"):
        pytest.skip("cuda-python is not installed")
    with GpuContext(device) as gpu, gpu.active("testing"), Tensor(gpu, "test.rows", (1024,), np.float32) as tensor:
        replay = Replay(gpu, lambda: (tensor.send(1024), tensor.download(1024)))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for value in range(5):
                tensor.host[:] = value
                replay.run()
                gpu.stream.synchronize()
                assert (tensor.rows(1024) == value).all()
        with gpu.stream.timed() as timing:
            replay.run()
        assert replay.reason == "" and 0 <= timing.elapsed_ms < 1000
        replay.close()
