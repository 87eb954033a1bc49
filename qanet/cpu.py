"""Instruction sets of this CPU that decide which precision is fast and which is exact, without a runtime."""

import functools
import platform

# In the order in which `qanet doctor` shows them, by Linux's names.
KNOWN = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "amx_bf16",
    "amx_fp16",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
)
_DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}


@functools.cache
def cpu_features() -> tuple[str, ...]:
    """Those of KNOWN that this CPU has; empty where the operating system does not list them."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return ("asimd", "asimdhp", "asimddp")  # every Mac with an ARM CPU has them, and there is no /proc/cpuinfo
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "").split()
    except OSError:
        return ()
    return tuple(name for name in KNOWN if name in flags)


def has_dot_products() -> bool:
    """Whether one instruction sums INT8 products in 32 bits: then INT8 is fast and cannot saturate."""
    return bool(_DOT_PRODUCTS & set(cpu_features()))


def sums_saturate() -> bool:
    """Whether this is an x86-64 CPU that adds products of 8 bits in pairs into saturating 16 bits.

    255 x 127 x 2 is beyond 32767, so INT8 is exact there only where neighbouring weights share their range. ARM
    CPUs multiply signed by signed, and 127 x 127 x 2 fits.
    """
    return platform.machine().lower() in ("x86_64", "amd64") and not has_dot_products()
