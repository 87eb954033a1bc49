"""What an import costs: nothing heavy loads before it is used, and nothing of training where people are parsed."""

import importlib
import pkgutil
import subprocess
import sys
import textwrap

import pytest

import qanet

HEAVY = ("torch", "torchvision", "tensorrt", "tensorrt_rtx", "pycuda", "cuda", "openvino", "onnxruntime", "onnx", "cv2")
OTHER_ROOMS = ("train", "export", "calib", "benchmarks")


def modules():
    """Every module of the core and of the runtime."""
    found = ["qanet.__main__"]
    for entry in pkgutil.walk_packages(qanet.__path__, "qanet."):
        if entry.name.split(".")[1] not in (*OTHER_ROOMS, "runtime"):
            found.append(entry.name)
    runtime = importlib.import_module("qanet.runtime")
    return sorted({*found, *(entry.name for entry in pkgutil.walk_packages(runtime.__path__, "qanet.runtime."))})


def run_python(script: str, **options) -> str:
    """The stdout of a fresh interpreter; its stderr in the failure's message."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_of_core_and_runtime_imports_without_the_heavy_packages():
    names = modules()
    expected = {"qanet.quality", "qanet.metrics.evaluator", "qanet.runtime.video.pipeline", "qanet.runtime.parser"}
    assert expected <= set(names)
    run_python(f"""
        import importlib, importlib.abc, sys

        class Blocker(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in {HEAVY!r}:
                    raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

        sys.meta_path.insert(0, Blocker())
        for name in {names!r}:
            importlib.import_module(name)
    """)


def test_import_qanet_costs_neither_numpy_nor_a_room():
    loaded = run_python("import sys, qanet; print(*sys.modules)").split()
    assert not {"numpy", *HEAVY} & set(loaded)
    assert sorted(m for m in loaded if m.startswith("qanet.")) == ["qanet._version", "qanet.errors"]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["doctor", "--json"]])
def test_help_and_doctor_load_nothing_heavy(arguments):
    loaded = run_python(f"""
        import contextlib, io, sys
        from qanet.__main__ import main
        with contextlib.redirect_stdout(io.StringIO()):
            assert main({arguments!r}) == 0
        print(*sys.modules)
    """).split()
    assert not set(HEAVY) & set(loaded)


def test_parsing_loads_neither_torch_nor_onnx_nor_another_room(shared_tiny_bundle, make_clip, boxes_file, tmp_path):
    arguments = ["parse", str(make_clip(2)), "--model", str(shared_tiny_bundle), "--boxes", str(boxes_file), "--json"]
    loaded = run_python(
        f"""
        import contextlib, io, sys
        from qanet.__main__ import main
        with contextlib.redirect_stdout(io.StringIO()):
            assert main({arguments!r}) == 0
        print(*sys.modules)
    """,
        cwd=tmp_path,
    ).split()
    assert {"cv2", "openvino", "qanet.runtime.parser"} <= set(loaded)
    assert not {"torch", "onnx", "onnxruntime", "tensorrt"} & set(loaded)
    assert not [m for m in loaded if m.startswith(tuple(f"qanet.{room}" for room in OTHER_ROOMS))]
