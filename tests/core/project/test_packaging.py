"""The wheel: stage folders under qanet, the model inside, nothing else at the top."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(tmp_path):
    setuptools = pytest.importorskip("setuptools", minversion="77", reason="building needs setuptools 77 or newer")
    assert setuptools
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout: the source tree cannot be told from what lies around it")
    source = tmp_path / "source"
    for name in tracked:
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        ".",
    ]
    compiler = tmp_path / "c++"  # the kernels' code has no part in this test: unoptimised they compile in a third
    compiler.write_text('#!/bin/sh\nexec c++ "$@" -O0\n')
    compiler.chmod(0o755)
    environment = {**os.environ, "CC": str(compiler), "CXX": str(compiler)}
    done = subprocess.run(
        command, cwd=source, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"qanet"}
    assert {n for n in names if ".so" in n} <= {"qanet/runtime/native/libqanet_native.so.1"}
    modules = [
        n.removesuffix(".py")
        for n in tracked
        if n.endswith(".py")
        and n.split("/")[0] in ("qanet", "train", "export", "runtime", "calib", "benchmarks")
        and not n.startswith("benchmarks/lab/")
    ]
    expected = {m if m.startswith("qanet/") else f"qanet/{m}" for m in modules}
    assert {n.removesuffix(".py") for n in names if n.endswith(".py")} == expected
    assert {"qanet/py.typed", "qanet/models/ccp13-lite0.qanet/model.onnx"} <= set(names)
    templates = {n if n.startswith("qanet/") else f"qanet/{n}" for n in tracked if n.endswith((".j2", ".css"))}
    assert {n for n in names if n.endswith((".j2", ".css"))} == {n for n in templates if "/lab/" not in n} != set()
