"""Versions of everything that decides about speed, and the commit of the checkout."""

import importlib.metadata
from pathlib import Path

from qanet.benchmarks.machine.reading import answer

PACKAGES = (
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "openvino",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnx",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "tensorrt_rtx",
    "pycuda",
    "cuda-python",
)


def versions() -> dict[str, str]:
    """Versions of the packages that decide about speed, as far as they are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_hash(root: Path) -> str | None:
    """The checkout's commit, with "+changes" when files differ from it; None outside a checkout."""
    if not (root / ".git").exists():
        return None
    commit = answer(["git", "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD"])
    if not commit:
        return None
    changed = answer(["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"])
    return commit.strip()[:12] + ("+changes" if changed else "")
