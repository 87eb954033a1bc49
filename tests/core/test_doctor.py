"""The doctor examines without importing, and an nvidia-smi that hangs or breaks is no GPU."""

import io
import json
import subprocess

import pytest

from qanet.cli import doctor


def test_the_document_lists_packages_without_importing_them(capsys):
    assert doctor.main(["--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["packages"]["numpy"] and facts["packages"].keys() >= {"cv2", "openvino", "torch", "tensorrt"}


@pytest.mark.parametrize(
    ("package", "task"),
    [
        ("openvino", "parse on the CPU"),
        ("cv2", "parse on the CPU"),
        ("tensorrt", "parse on a GPU"),
        ("pycuda", "parse on a GPU"),
        ("torch", "train and export"),
        ("onnxruntime", "calibrate INT8"),
        ("tensorrt", "build TensorRT engines"),
        ("tensorrt_rtx", "build TensorRT-RTX engines ahead of time"),
    ],
)
def test_a_task_needs_its_package(package, task, monkeypatch):
    packages = dict.fromkeys((p[0] for p in doctor._PACKAGES), "1.0")
    monkeypatch.setattr(doctor, "has_driver", lambda: True)
    monkeypatch.setattr(doctor, "package_versions", lambda: packages)
    assert all(doctor.examine()["can"].values())
    packages[package] = None
    can = doctor.examine()["can"]
    assert can[task] is False and not all(can.values())


def test_what_is_missing_comes_with_its_command(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "package_versions", lambda: dict.fromkeys(p[0] for p in doctor._PACKAGES))
    assert doctor.main([]) == 1
    text = capsys.readouterr().out
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "missing" in lines["openvino"] and lines["openvino"].endswith("pip install openvino")


@pytest.mark.parametrize("error", [subprocess.TimeoutExpired("nvidia-smi", 20), OSError("Exec format error")])
def test_a_broken_nvidia_smi_is_no_gpu(monkeypatch, error):
    def run(*args, **options):
        raise error

    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(doctor.subprocess, "run", run)
    monkeypatch.setattr(doctor, "open", lambda *a, **k: io.StringIO("a desktop computer"), raising=False)
    assert doctor.gpus() == []


def test_the_names_of_gpus_are_those_of_nvidia_smi(monkeypatch):
    answer = subprocess.CompletedProcess([], 0, "NVIDIA RTX A2000, 8.6, 560.35\n\n", "")
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *a, **k: answer)
    assert doctor.gpus() == ["NVIDIA RTX A2000, 8.6, 560.35"]
