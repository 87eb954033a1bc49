"""Fresh Python processes: what they print, and why one failed in a line."""

import subprocess
import sys
from collections.abc import Callable

Spawn = Callable[[list[str]], str]  # arguments of Python to its stdout


def spawn_python(arguments: list[str], timeout_s: float = 300) -> str:
    """Standard output of this Python with the arguments.

    Raises:
        OSError, subprocess.SubprocessError: it cannot be started, fails, or takes too long; see `reason_of`.
    """
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=timeout_s, check=True)
    return done.stdout


def reason_of(error: Exception) -> str:
    """The last line a failed process wrote to stderr, or what else went wrong."""
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in str(error.stderr).splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {error.returncode}"
    return f"{type(error).__name__}: {error}"
