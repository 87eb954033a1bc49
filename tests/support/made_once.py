"""Costly files of the tests, made once for all processes, and kept in build/tests until their sources change."""

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]


def made_once(name: str, parts: Iterable[object], make: Callable[[Path], object]) -> Path:
    """The file `name` that `make(path)` writes, from the cache where the same parts made it before.

    Args:
        parts: everything that the file depends on: texts, bytes, or the Paths of files.
        make: called with the path to write; where it fails, nothing is kept.
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    folder = ROOT / "build" / "tests"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{digest.hexdigest()[:24]}-{name}"
    with FileLock(f"{kept}.lock"):
        if not kept.is_file():
            partial = kept.with_name(f"{kept.name}.partial")
            make(partial)
            partial.replace(kept)
    return kept


def sources(*folders: str, suffixes: tuple[str, ...] = (".py",)) -> list[Path]:
    """The files of folders of the project, in order."""
    return sorted(p for folder in folders for p in (ROOT / folder).rglob("*") if p.suffix in suffixes)


def compiled_once(command: list[object], depends_on: Iterable[Path], output: Path) -> Path:
    """Compile into `output`, or copy what the same compiler made from the same sources and flags.

    Args:
        command: the compiler and its arguments, without `-o`; paths in it may differ from run to run.
        depends_on: every source and header.
    Raises:
        AssertionError: quotes the compiler.
    """
    words = [str(word) for word in command]
    version = subprocess.run([words[0], "--version"], capture_output=True, text=True, check=True).stdout

    def compile_into(path: Path) -> None:
        done = subprocess.run([*words, "-o", str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    flags = [word for word in words[1:] if "/" not in word]
    shutil.copy(made_once(output.name, [version, *flags, *sorted(depends_on)], compile_into), output)
    return output
