"""The paths of a command: how they are written on a command line, and which of them are one file."""

import os
import stat
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from qanet.errors import QanetError
from qanet.files import place_of

_FILE = "file://"
Identity = tuple[object, ...]


def local_path(address: str) -> Path:
    """The path in an address: a path as it is, or file:///a%20b.mp4, whose %20 is a space.

    >>> local_path("file://localhost/films/a%20b.mp4").as_posix(), local_path("12:30%20.mp4").as_posix()
    ('/films/a b.mp4', '12:30%20.mp4')
    """
    if not address.startswith(_FILE):
        return Path(address)
    text = address.removeprefix(_FILE)
    text = text.removeprefix("localhost") if text.startswith("localhost/") else text
    decoded = unquote(text, errors="surrogateescape")
    return Path(text if os.path.lexists(text) and "\0" not in decoded and not os.path.lexists(decoded) else decoded)


def same_file(first: Path, second: Path) -> bool:
    """Whether two paths are one file or folder, or would be one if they were made."""
    return identity(first) is not None and identity(first) == identity(second)


def identity(path: Path) -> Identity | None:
    """What all spellings of a file have in common; None for a device, a pipe and standard output.

    Of a file that is yet to be made: its nearest folder and the names below, in one case and one Unicode form, since
    some file systems do not tell A from a.

    Raises:
        QanetError: a loop of links, or a name with a NUL.
    """
    place = place_of(path)
    if place is None:
        return None
    missing: list[str] = []
    while True:
        try:
            found = os.stat(place)
            break
        except OSError:
            if place.parent == place:
                return (str(path),)
            missing.append(unicodedata.normalize("NFC", place.name).casefold())
            place = place.parent
    is_file = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
    return (found.st_dev, found.st_ino, *missing) if is_file else None


def check_outputs(
    written: Iterable[Path | None], *, read: Iterable[Path | str | None] = (), inside: Iterable[Path | None] = ()
) -> None:
    """Refuse outputs that would overwrite something the command reads, or each other. To be called before it starts.

    Args:
        written: every file that will be written.
        read: files that are read.
        inside: folders that are read as a whole, such as bundles: nothing may be written into them.
    Raises:
        QanetError: naming the output.
    """
    inputs = {identity(Path(path)): path for path in read if path}
    folders = {identity(path): path for path in inside if path}
    outputs: set[Identity] = set()
    for path in filter(None, written):
        key = identity(path)
        if key is None:
            continue
        if key in inputs:
            raise QanetError(
                f"{path.name} would be overwritten", expected="an output other than the input", got=inputs[key]
            )
        if key in outputs:
            raise QanetError("two outputs are one file", expected="two names", got=path)
        outputs.add(key)
        place = place_of(path)
        for folder in (place, *place.parents) if folders and place is not None else ():
            if (holder := identity(folder)) in folders:
                raise QanetError(
                    f"{path} lies in {folders[holder]}, which is in use", expected="an output elsewhere", got=path
                )
