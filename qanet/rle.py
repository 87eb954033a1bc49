"""COCO's run-length encoding of a binary mask, as pycocotools writes it (tests compare the two).

Pixels are taken column by column; runs alternate between 0 and 1, starting with 0. `counts` packs each run
as a difference to the one two before it, in base 32 with a sign, six bits a character from '0' on.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError


def encode(mask: NDArray) -> dict[str, Any]:
    """(H, W) of zeros and non-zeros -> {"size": [H, W], "counts": str}."""
    if mask.ndim != 2:
        raise QanetError("a mask must have two axes", expected="(H, W)", got=mask.shape)
    flat = np.asarray(mask != 0).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    runs = np.diff(edges).tolist() if flat.size else []
    if flat.size and flat[0]:
        runs.insert(0, 0)
    return {"size": [int(mask.shape[0]), int(mask.shape[1])], "counts": _pack(runs)}


def decode(rle: dict[str, Any]) -> NDArray[np.uint8]:
    """Inverse of `encode`: (H, W) uint8 of 0 and 1."""
    height, width = rle["size"]
    runs = _unpack(rle["counts"])
    if sum(runs) != height * width:
        raise QanetError("run lengths do not fill the mask", expected=height * width, got=sum(runs))
    values = np.arange(len(runs)) % 2
    return np.repeat(values, runs).astype(np.uint8).reshape((height, width), order="F")


def _pack(runs: list[int]) -> str:
    out = []
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            out.append(chr(48 + (bits | (32 if more else 0))))
    return "".join(out)


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
