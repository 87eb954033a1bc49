"""The compute capability of the GPU of this machine, asked from the driver and nothing else."""

import ctypes

from qanet.errors import QanetError

_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute, cuda.h


def this_gpu(index: int = 0) -> str:
    """Return the target name, such as "sm_87", of GPU `index`.

    Raises:
        QanetError: no NVIDIA driver, or no such GPU.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise QanetError(
            "no NVIDIA driver on this machine",
            expected="libcuda.so.1",
            got=str(error),
            next_command="build on the machine that will run the engine, or ahead of time with --runtime tensorrt-rtx",
        ) from error
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    _check(driver.cuInit(0), "cuInit")
    _check(driver.cuDeviceGet(ctypes.byref(device), index), f"cuDeviceGet({index})")
    for attribute, value in ((_COMPUTE_CAPABILITY_MAJOR, major), (_COMPUTE_CAPABILITY_MINOR, minor)):
        _check(driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device), "cuDeviceGetAttribute")
    return f"sm_{major.value}{minor.value}"


def _check(code: int, call: str) -> None:
    if code != 0:
        raise QanetError(f"the NVIDIA driver refused {call}", expected=0, got=code, next_command="nvidia-smi")
