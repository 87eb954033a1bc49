"""The header of a TensorRT-RTX plan, and files that are none."""

import pytest

from qanet.errors import QanetError
from qanet.export.engines.rtx_plan import RtxPlan, read_rtx_plan


def plan_bytes(mask=0x14, size=64, magic=b"vtrt"):
    head = b"vtrt" + bytes(4) + (2).to_bytes(8, "little") + size.to_bytes(8, "little") + bytes([1, 7, 1, 116])
    return head + magic + mask.to_bytes(4, "little") + bytes(28)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a TensorRT-RTX plan"),
        (b"ftrt" + bytes(100), "not a TensorRT-RTX plan"),
        (plan_bytes()[:40], "truncated"),
        (plan_bytes(size=65), "truncated"),
        (plan_bytes(magic=b"????"), "unknown layout"),
        (plan_bytes(mask=0x40), "generations unknown"),
        (plan_bytes(mask=0), "generations unknown"),
    ],
)
def test_a_file_that_is_no_plan(data, message, tmp_path):
    with pytest.raises(QanetError, match=message):
        read_rtx_plan(data)
    (tmp_path / "engine.plan").write_bytes(data)
    with pytest.raises(QanetError, match=message):
        read_rtx_plan(tmp_path / "engine.plan")


def test_a_plan_and_a_file_that_is_not_there(tmp_path):
    assert read_rtx_plan(plan_bytes()) == RtxPlan(64, 2, "1.7.1.116", ("sm_86", "sm_120"))
    with pytest.raises(QanetError, match="no such TensorRT-RTX plan"):
        read_rtx_plan(tmp_path / "engine.plan")
