"""Calibrations are cached by content: the graph's bytes, the crops' pixels, and what read them.

The pixels are those behind cropping and resampling, so that a change of that preprocessing changes the name; the
normalisation is in the graph. What is stored serves every method: ranges are found from it in about a second.
The cache is $XDG_CACHE_HOME/qanet/calibration (~/.cache without it); deleting it costs time only.
"""

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from qanet.calib.observe import Crop, Observations
from qanet.errors import QanetError
from qanet.files import write_bytes

_VERSION = 1  # raised when what is observed changes
_IN_MEMORY_BYTES = 64 << 20  # about 200 crops of 384x288; more go to a file


def cache_folder() -> Path:
    """Where calibrations and sensitivities are kept."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "qanet" / "calibration"


def cache_key(*parts: object) -> str:
    """Hex digest of parts that JSON can tell apart."""
    return hashlib.sha256(json.dumps([_VERSION, *parts], sort_keys=True).encode()).hexdigest()[:32]


def cached_observations(key: str, make: Callable[[], Observations]) -> tuple[Observations, bool]:
    """Observations from the cache, else made and stored; and whether they were there.

    A file that cannot be read counts as absent, and a cache that cannot be written as no cache.
    """
    path = cache_folder() / f"{key}.npz"
    try:
        return Observations.from_bytes(path.read_bytes()), True
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        made = make()
    store(path, made.to_bytes())
    return made, False


def store(path: Path, data: bytes) -> None:
    """Write a file of the cache where that is possible."""
    try:
        write_bytes(path, data)
    except QanetError:
        return  # a full disk or a read-only home: the result is used all the same


class CropSpool:
    """Crops read once from their source and as often as wanted from here; memory stays bounded, the rest is a file.

    Attributes:
        digest: hex sha256 over the pixels in order, the same however the crops were batched.
    """

    def __init__(self, crops: Iterable[Crop], progress: Callable[[int], None] | None = None):
        """crops: (1, H, W, 3) uint8, all of one shape (see `each_crop`)."""
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 closed by __exit__
        self._shape: tuple[int, ...] = ()
        self._count = 0
        digest = hashlib.sha256()
        for crop in crops:
            self._shape = self._shape or crop.shape
            if crop.shape != self._shape:
                raise QanetError("the crops differ in size", expected=self._shape, got=crop.shape)
            data = crop.tobytes()
            digest.update(data)
            self._file.write(data)
            self._count += 1
            if progress:
                progress(self._count)
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Crop]:
        size = int(np.prod(self._shape)) if self._shape else 0
        for index in range(self._count):
            self._file.seek(index * size)
            yield np.frombuffer(self._file.read(size), np.uint8).reshape(self._shape)

    def __enter__(self) -> "CropSpool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
