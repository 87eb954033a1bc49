"""COCO's run-length encoding of a binary mask, as pycocotools writes it (tests compare the two).

Pixels are taken column by column; runs alternate between 0 and 1, starting with 0. `counts` packs each run
as a difference to the one two before it, in base 32 with a sign, six bits per character from '0' on.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError


def encode(mask: NDArray) -> dict[str, Any]:
    """(H, W) of zeros and non-zeros -> {"size": [H, W], "counts": str}.

    >>> encode(np.array([[0, 1, 0], [1, 0, 0]]))  # columns: 0 1, 1 0, 0 0
    {'size': [2, 3], 'counts': '123'}
    """
    if mask.ndim != 2:
        raise QanetError("a mask must have two axes", expected="(H, W)", got=mask.shape)
    flat = np.asarray(mask != 0).ravel(order="F")
    size = [int(mask.shape[0]), int(mask.shape[1])]
    if not flat.size:
        return {"size": size, "counts": ""}
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0] if not flat[0] else [0, 0], changes, [flat.size]]))
    return {"size": size, "counts": _pack([runs])[0]}


def encode_labels(
    labels: NDArray[np.uint8], origin_xy: tuple[int, int], image_size: tuple[int, int]
) -> dict[int, tuple[int, dict[str, Any]]]:
    """The masks of all classes of a region at once; each equals `encode` of that class on the whole image.

    A class costs its runs, not its pixels: the region is read once.

    Args:
        labels: (h, w) class of each pixel of the region, 0 is background.
        origin_xy: of the region's first pixel in the image.
        image_size: (H, W); the region lies inside.
    Returns:
        For each class of the region, in ascending order: its area in pixels and {"size": [H, W], "counts": str}.
    """
    if labels.size == 0:
        return {}
    rows, (height, width) = labels.shape[0], image_size
    flat = np.ascontiguousarray(labels.T).ravel()  # column by column
    is_start = np.empty(flat.size, bool)
    np.not_equal(flat[1:], flat[:-1], out=is_start[1:])
    is_start[::rows] = True  # a run ends with its column, unless the region is as high as the image: see `_runs_of`
    starts = np.flatnonzero(is_start)
    lengths = np.diff(starts, append=flat.size)
    classes = flat[starts]
    column, row = np.divmod(starts, rows)
    begins = (column + origin_xy[0]) * height + row + origin_xy[1]  # in the image
    runs, areas = {}, {}
    for class_id in np.flatnonzero(np.bincount(classes)).tolist():
        if class_id:
            mine = classes == class_id
            areas[class_id] = int(lengths[mine].sum())
            runs[class_id] = _runs_of(begins[mine], lengths[mine], height * width)
    size = [int(height), int(width)]
    packed = _pack(list(runs.values()))
    return {
        class_id: (areas[class_id], {"size": list(size), "counts": counts}) for class_id, counts in zip(runs, packed)
    }


def _runs_of(begins: NDArray[np.int64], lengths: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Lengths of zeros, ones, zeros, ... of a mask from its runs of ones; runs that touch become one."""
    ends = begins + lengths
    apart = np.flatnonzero(begins[1:] != ends[:-1])
    begins = np.concatenate([begins[:1], begins[1:][apart]])
    ends = np.concatenate([ends[:-1][apart], ends[-1:]])
    edges = np.empty(2 * len(begins) + 2, np.int64)
    edges[0], edges[-1] = 0, size
    edges[1:-1:2], edges[2:-1:2] = begins, ends
    runs = np.diff(edges)
    return runs if runs[-1] else runs[:-1]


def _pack(all_runs: list[NDArray[np.int64]]) -> list[str]:
    """The run lengths of each mask as `counts`, all masks computed together."""
    if not all_runs:
        return []
    values = []
    for runs in all_runs:
        difference = runs.copy()
        difference[3:] -= runs[1:-2]
        values.append(difference)
    rest = np.concatenate(values)
    characters, wanted = [], [np.ones(len(rest), bool)]
    while True:
        bits = rest & 31
        rest = rest >> 5
        more = rest != np.where(bits & 16, -1, 0)
        characters.append((48 + (bits | np.where(more, 32, 0))).astype(np.uint8))
        if not (more & wanted[-1]).any():
            break
        wanted.append(more & wanted[-1])
    mask = np.stack(wanted, 1)  # (values, characters per value)
    text = np.stack(characters, 1)[mask].tobytes().decode("ascii")
    ends = np.cumsum(np.add.reduceat(mask.sum(1), np.cumsum([0, *(len(v) for v in values[:-1])]))).tolist()
    return [text[begin:end] for begin, end in zip([0, *ends[:-1]], ends)]


def decode(rle: dict[str, Any]) -> NDArray[np.uint8]:
    """Inverse of `encode`: (H, W) uint8 of 0 and 1.

    Args:
        rle: {"size": [H, W], "counts"} with counts as a packed string (or bytes), or as the list of run lengths.
    Raises:
        QanetError: run lengths that do not fill the mask.

    >>> decode({"size": [2, 3], "counts": [1, 2, 3]}).tolist()
    [[0, 1, 0], [1, 0, 0]]
    """
    (height, width), counts = rle["size"], rle["counts"]
    if isinstance(counts, list):
        runs = counts
    else:
        runs = _unpack(counts.decode("ascii") if isinstance(counts, bytes) else counts)
    are_lengths = all(type(run) is int and run >= 0 for run in runs)
    if not are_lengths or sum(runs) != height * width:
        got = sum(runs) if are_lengths else str(runs)[:60]
        raise QanetError("run lengths do not fill the mask", expected=height * width, got=got)
    values = np.arange(len(runs)) % 2
    return np.repeat(values, runs).astype(np.uint8).reshape((height, width), order="F")


def _unpack(counts: str) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return runs
