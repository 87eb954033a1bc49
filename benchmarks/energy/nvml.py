"""NVML: energy, or else power, of the first NVIDIA GPU; the driver's own library, called directly."""

import ctypes
from typing import Any

from qanet.benchmarks.energy.source import EnergySource, PowerIntegral, Unavailable

_SUCCESS = 0
_REASONS = {1: "not initialised", 3: "not supported by this GPU", 4: "no permission", 9: "no driver", 15: "GPU lost"}


class _Counter:
    """A total that the GPU itself counts, in millijoules."""

    def __init__(self, library: Any, device: ctypes.c_void_p, name: str):
        self.name, self._library, self._device = f"NVML energy of {name}", library, device
        self.joules()

    def joules(self) -> float:
        value = ctypes.c_ulonglong()
        _check("energy", self._library.nvmlDeviceGetTotalEnergyConsumption(self._device, ctypes.byref(value)))
        return value.value / 1e3

    def close(self) -> None:
        """The driver frees the rest when the process ends."""


def open_nvml(index: int = 0, library: Any = None) -> EnergySource:
    """The GPU's energy counter (Volta and later); its power reading, integrated, where it has none.

    Args:
        library: what to call instead of libnvidia-ml.so.1; for tests.
    Raises:
        Unavailable: no driver, no GPU, or neither energy nor power can be read (Jetsons answer "not supported").
    """
    if library is None:
        try:
            library = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError as error:
            raise Unavailable("NVML: libnvidia-ml.so.1 is not there: no NVIDIA driver") from error
    _check("start", library.nvmlInit_v2())
    device = ctypes.c_void_p()
    _check(f"GPU {index}", library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)))
    text = ctypes.create_string_buffer(96)
    _check("name", library.nvmlDeviceGetName(device, text, 96))
    name = text.value.decode(errors="replace")
    try:
        return _Counter(library, device, name)
    except Unavailable:
        return PowerIntegral(f"NVML power of {name}", lambda: _watts(library, device))


def _watts(library: Any, device: ctypes.c_void_p) -> float:
    value = ctypes.c_uint()
    _check("power", library.nvmlDeviceGetPowerUsage(device, ctypes.byref(value)))
    return value.value / 1e3


def _check(what: str, code: int) -> None:
    if code != _SUCCESS:
        raise Unavailable(f"NVML: {what}: {_REASONS.get(code, f'error {code}')}")
