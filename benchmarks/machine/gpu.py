"""NVIDIA GPUs as nvidia-smi lists them."""

from qanet.benchmarks.machine import reading

FIELDS = (
    "name",
    "driver_version",
    "memory.total",
    "clocks.sm",
    "clocks.max.sm",
    "power.limit",
    "compute_cap",
    "temperature.gpu",
    "pstate",
    "persistence_mode",
    "memory.used",
)
_THROTTLE_FIELDS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")  # new name, old name
_NOT_THROTTLING = 0x1 | 0x2  # idle, and clocks that the user set
_REASONS = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "temperature (software)",
    0x40: "temperature (hardware)",
    0x80: "power brake",
    0x100: "display clocks",
}


def gpus() -> list[dict[str, str]]:
    """Every GPU; empty where there is none. Jetsons answer [N/A] in places."""
    rows = _query(FIELDS)
    found = [dict(zip(FIELDS, row)) for row in rows if len(row) == len(FIELDS)]
    for field in _THROTTLE_FIELDS:
        reasons = _query((field,)) if found else []
        if len(reasons) == len(found) and reasons:
            for gpu, (mask, *_) in zip(found, reasons):
                gpu["throttled"] = throttle_reasons(mask)
            break
    return found


def throttle_reasons(mask: str) -> str:
    """The reasons in a bit mask such as 0x0000000000000004; "" for none, "unknown" for what is no mask."""
    try:
        bits = int(mask, 16)
    except ValueError:
        return "unknown"
    bits &= ~_NOT_THROTTLING
    names = [name for bit, name in _REASONS.items() if bits & bit]
    return ", ".join(names) or ("unknown" if bits else "")


def _query(fields: tuple[str, ...]) -> list[list[str]]:
    text = reading.answer(["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"])
    return [[cell.strip() for cell in line.split(",")] for line in (text or "").splitlines() if line.strip()]
