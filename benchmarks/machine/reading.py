"""Reading what a machine tells of itself: a file's text or nothing, a tool's answer or nothing."""

import subprocess
from pathlib import Path


def read(path: str | Path) -> str:
    """A file's text; empty where it cannot be read."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def number(path: str | Path) -> int | None:
    """A whole number from a file; None where there is none."""
    text = read(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def answer(arguments: list[str]) -> str | None:
    """A tool's stdout; None where it is missing, fails or does not answer."""
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
