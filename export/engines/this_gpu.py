"""The compute capability and the name of the GPU of this machine, asked from the driver and nothing else."""

import ctypes

from qanet.errors import QanetError

_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute, cuda.h
_NAME_BYTES = 256


def this_gpu(index: int = 0) -> str:
    """Return the target name, such as "sm_87", of GPU `index`.

    Raises:
        QanetError: no NVIDIA driver, or no such GPU.
    """
    driver, device = _device(index)
    major, minor = ctypes.c_int(), ctypes.c_int()
    for attribute, value in ((_COMPUTE_CAPABILITY_MAJOR, major), (_COMPUTE_CAPABILITY_MINOR, minor)):
        _check(driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device), "cuDeviceGetAttribute")
    return f"sm_{major.value}{minor.value}"


def gpu_name(index: int = 0) -> str:
    """Return the model's name, such as "Orin"; errors as `this_gpu`."""
    driver, device = _device(index)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _check(driver.cuDeviceGetName(name, _NAME_BYTES, device), "cuDeviceGetName")
    return name.value.decode(errors="replace")


def _device(index: int) -> tuple[ctypes.CDLL, ctypes.c_int]:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise QanetError(
            "no NVIDIA driver on this machine",
            expected="libcuda.so.1",
            got=str(error),
            next_command="build on the machine that will run the engine, or ahead of time with --runtime tensorrt-rtx",
        ) from error
    device = ctypes.c_int()
    _check(driver.cuInit(0), "cuInit")
    _check(driver.cuDeviceGet(ctypes.byref(device), index), f"cuDeviceGet({index})")
    return driver, device


def _check(code: int, call: str) -> None:
    if code != 0:
        raise QanetError(f"the NVIDIA driver refused {call}", expected=0, got=code, next_command="nvidia-smi")
