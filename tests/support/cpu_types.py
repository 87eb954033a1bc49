"""What the CPU under the tests has: they run on any, and say what they left out."""

import pytest

from qanet.runtime.backends.openvino import floating_point, openvino_core

HAS_16_BITS = floating_point(openvino_core(), "fp16") != "fp32"
needs_16_bits = pytest.mark.skipif(not HAS_16_BITS, reason="this CPU computes FP32 only: no FP16 or BF16 engine")
BUILT_HERE = ("fp32", "fp16", "int8") if HAS_16_BITS else ("fp32", "int8")  # by a plain `qanet build`
FP16 = pytest.param("fp16", marks=needs_16_bits)
BF16 = pytest.param("bf16", marks=needs_16_bits)
