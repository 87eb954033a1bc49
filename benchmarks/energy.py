"""Millijoules per person and frame: a variant runs back to back while a meter counts; the idle power is subtracted."""

import time
from collections.abc import Callable, Mapping, Sequence

from qanet.benchmarks.harness import Target
from qanet.benchmarks.meters import EnergySource, Rapl, Unavailable, open_ina3221, open_nvml
from qanet.benchmarks.schema import Energy, VariantEnergy

OPENERS: dict[str, tuple[Callable[[], EnergySource], ...]] = {
    "gpu": (open_nvml, open_ina3221),  # a Jetson's GPU is on the board's rails
    "cpu": (Rapl, open_ina3221),
}


def open_source(place: str, openers: Mapping[str, Sequence[Callable[[], EnergySource]]] = OPENERS) -> EnergySource:
    """The first meter of a place that can be read.

    Args:
        place: "gpu" or "cpu".
    Raises:
        Unavailable: none; the message has the reason of each.
    """
    reasons = []
    for opener in openers[place]:
        try:
            return opener()
        except Unavailable as error:
            reasons.append(str(error))
    raise Unavailable("; ".join(reasons))


def measure_energy(
    targets: Mapping[str, Target],
    seconds: float,
    place: str,
    opener: Callable[[str], EnergySource] = open_source,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Energy:
    """Energy of each target, one after the other.

    Args:
        targets: label -> a target that parses one frame per call; `batch` is the people per call.
        seconds: to idle before, and to run each for.
    Returns:
        The energy; "unavailable" with the reason, as a whole or per target, where it could not be measured.
    """
    try:
        source = opener(place)
    except Unavailable as error:
        return Energy("unavailable", str(error), None, None, {})
    try:
        idle_w = _idle(source, seconds, clock, sleep)
        by_variant = {label: _variant(source, target, seconds, idle_w, clock) for label, target in targets.items()}
        return Energy("measured", None, source.name, round(idle_w, 4), by_variant)
    except Unavailable as error:
        return Energy("unavailable", str(error), source.name, None, {})
    finally:
        source.close()


def _idle(source: EnergySource, seconds: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> float:
    start, before = clock(), source.joules()
    sleep(seconds)
    used, elapsed = source.joules() - before, clock() - start
    if used <= 0:  # the sensor is broken, or too coarse
        raise Unavailable(f"{source.name} counted nothing in {elapsed:.1f} idle seconds")
    return used / elapsed


def _variant(
    source: EnergySource, target: Target, seconds: float, idle_w: float, clock: Callable[[], float]
) -> VariantEnergy:
    """Run one target back to back; a target that raises is unavailable, the others go on."""
    frames = 0
    start, before = clock(), source.joules()
    try:
        while clock() - start < seconds:
            target.call(frames)
            frames += 1
    except Exception as error:
        return VariantEnergy("unavailable", f"{type(error).__name__}: {error}")
    used, elapsed = source.joules() - before, clock() - start
    above = used - idle_w * elapsed
    if not frames or above <= 0:
        return VariantEnergy("unavailable", f"{used:.2f} J in {elapsed:.1f} s are not above idle")
    return VariantEnergy(
        status="measured",
        reason=None,
        frames=frames,
        seconds=round(elapsed, 3),
        watts=round(used / elapsed, 4),
        total_mj_per_frame=round(used / frames * 1e3, 4),
        mj_per_frame=round(above / frames * 1e3, 4),
        mj_per_person=round(above / frames / target.batch * 1e3, 4) if target.batch else None,
    )
