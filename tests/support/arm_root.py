"""Programs for ARM that the emulator runs: Debian's Python for arm64, and the project's wheels for aarch64.

    python tests/support/arm_root.py

lays them into the user's cache ($XDG_CACHE_HOME or ~/.cache; 430 MB), once for every set of versions. It takes apt-get
of a Debian whose archive has arm64, and this interpreter's pip; apt keeps its lists and its state beside the result, so
that the machine's own packages and architectures are left as they are.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"
_DEBIAN = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
_WHEELS = ("numpy", "openvino", "onnxruntime", "opencv-python-headless", "onnx", "ml_dtypes", "protobuf", "tqdm")
_RECIPE = "1"  # another number where the same versions are laid out in another way
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")  # as it was before tests took another one


def folder() -> Path:
    """Where they lie: root/ is Debian's, site/ the wheels'."""
    pins = [line for line in _CONSTRAINTS.read_text().splitlines() if line.startswith(_WHEELS)]
    key = hashlib.sha256("\n".join((_RECIPE, *_DEBIAN, *_WHEELS, *pins)).encode()).hexdigest()[:16]
    return _CACHE / "qanet" / f"arm-{key}"


def ready() -> bool:
    """Whether they are there."""
    return folder().is_dir()


def prepare() -> None:
    """Fetch and unpack them; subprocess.CalledProcessError where apt-get or pip cannot."""
    folder().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder().parent, prefix="arm-unfinished-") as name:
        made = Path(name)
        packages = _fetch_packages(made / "apt")
        for package in packages:
            subprocess.run(["dpkg-deb", "-x", str(package), str(made / "root")], check=True)
        interpreter = next((made / "root/usr/bin").glob("python3.*[0-9]")).name
        glibc = re.findall(r"libc6_2\.(\d+)", " ".join(package.name for package in packages))
        _install_wheels(made / "site", interpreter.removeprefix("python"), int(glibc[0]))
        shutil.rmtree(made / "apt")
        if not ready():
            made.rename(folder())
            made.mkdir()  # for the end of the `with`


def _fetch_packages(apt: Path) -> list[Path]:
    """The packages and all that they need, by an apt to which nothing is installed."""
    for part in ("state/lists/partial", "cache/archives/partial"):
        (apt / part).mkdir(parents=True)
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "Dir::State": apt / "state",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": apt / "cache",
        "APT::Sandbox::User": "",
    }
    command = ["apt-get", "-qq", *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]
    subprocess.run([*command, "update"], check=True)
    subprocess.run([*command, "-y", "--download-only", "--no-install-recommends", "install", *_DEBIAN], check=True)
    return sorted((apt / "cache" / "archives").glob("*.deb"))


def _install_wheels(site: Path, python: str, glibc: int) -> None:
    """The pinned wheels for aarch64, a Python such as 3.11 and a C library such as 2.36."""
    tags = [f"manylinux_2_{minor}_aarch64" for minor in range(glibc, 16, -1)]
    platforms = [word for tag in (*tags, "manylinux2014_aarch64") for word in ("--platform", tag)]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq", "install", "--target", str(site)]
    chosen = [*platforms, "--python-version", python, "--only-binary=:all:", "--no-deps", "-c", str(_CONSTRAINTS)]
    subprocess.run([*pip, *chosen, *_WHEELS], check=True)


if __name__ == "__main__":
    if not ready():
        prepare()
    print(folder())
