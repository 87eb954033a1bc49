"""Observations of the FP32 graph -> the record of ranges that `scales.json` holds."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from qanet.calib.cache import CropSpool, cache_key, cached_observations
from qanet.calib.graph import file_sha256, load_model
from qanet.calib.histogram import Histogram
from qanet.calib.observe import Crop, Observations, crop_shape, each_crop, observe
from qanet.calib.placement import DEFAULT_KEEP, place
from qanet.calib.ranges import DEFAULT_PERCENTILE, check_method, find_range
from qanet.calib.scales import Range, Scales
from qanet.errors import QanetError

_AGAIN = "qanet calibrate NAME.qanet --data DIR"


def calibrate(
    model_path: str | Path,
    batches: Iterable[Crop],
    method: str = "entropy",
    *,
    keep: tuple[str, ...] = DEFAULT_KEEP,
    percentile: float = DEFAULT_PERCENTILE,
    data_sha256: str = "",
    threads: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Scales:
    """Find the range of every activation that may be quantised; nothing is cached.

    Args:
        model_path: FP32 ONNX with one uint8 input (N, H, W, 3) in front of its convolutions.
        batches: uint8 arrays (B, H, W, 3), read once; B may vary and does not matter.
        method: one of qanet.calib.ranges.METHODS.
        keep: patterns of node names to leave in float.
        percentile: per cent of values kept by method "percentile".
        data_sha256: recorded as it is.
        threads: of ONNX Runtime, 0 for all cores.
        progress: called with the number of crops done, after each.
    Raises:
        QanetError: unknown method, broken ONNX, no crops, crops of a wrong shape or dtype, crops that are all black,
            an activation that is NaN, infinite, or zero throughout where it is quantised.
    """
    check_method(method, percentile)
    model = load_model(model_path)
    place(model, keep)  # a pattern that matches nothing is told before an hour is spent
    seen = observe(model, batches, threads, progress)
    return scales_of(model, file_sha256(model_path), seen, method, keep, percentile, data_sha256)


def calibrate_cached(
    model_path: str | Path,
    batches: Iterable[Crop],
    method: str,
    *,
    keep: tuple[str, ...] = DEFAULT_KEEP,
    percentile: float = DEFAULT_PERCENTILE,
    threads: int = 0,
    progress: Callable[[int], None] | None = None,
) -> tuple[Scales, bool]:
    """`calibrate` through the cache; and whether the network had been run on these crops before.

    The crops are read in any case: their pixels are part of the name in the cache.
    """
    import onnxruntime

    check_method(method, percentile)
    model = load_model(model_path)
    place(model, keep)
    model_sha256 = file_sha256(model_path)
    with CropSpool(each_crop(batches, crop_shape(model))) as crops:
        key = cache_key("observations", model_sha256, crops.digest, onnxruntime.__version__)
        seen, is_cached = cached_observations(key, lambda: observe(model, crops, threads, progress))
        return scales_of(model, model_sha256, seen, method, keep, percentile, crops.digest), is_cached


def scales_of(
    model: Any,
    model_sha256: str,
    seen: Observations,
    method: str,
    keep: tuple[str, ...],
    percentile: float,
    data_sha256: str,
) -> Scales:
    """Ranges by a method; of every activation that may be quantised, so that `keep` can be edited both ways."""
    if seen.crops < 2:
        raise QanetError(
            "too few crops to calibrate on",
            expected="a few hundred of different people",
            got=seen.crops,
            next_command=_AGAIN,
        )
    if seen.is_black:
        raise QanetError(
            f"all {seen.crops} crops are black",
            expected="photographs of people",
            got="every pixel 0",
            next_command="check the boxes: a box outside its image gives a black crop",
        )
    by = f"percentile {percentile:g}" if method == "percentile" else method
    needed = set(place(model, keep).observed())
    ranges = {}
    for name, histogram in seen.histograms.items():
        amax = find_range(histogram, method, percentile=percentile)
        if amax > 0:
            ranges[name] = Range(amax, by, histogram.largest)
        elif name in needed:
            raise _always_zero(name, histogram)
    return Scales(by, seen.crops, model_sha256, data_sha256, tuple(keep), ranges, dict(seen.largest))


def _always_zero(name: str, histogram: Histogram) -> QanetError:
    return QanetError(
        f"calibration: tensor {name!r} is zero for every crop",
        expected="a range above zero",
        got=histogram.largest,
        next_command="use more varied crops, or keep the layers that read it in float",
    )
