"""The examples in the docstrings of the core run, and what a user calls has one."""

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import cv2
import numpy as np
import pytest

import qanet

ROOMS = ("train", "export", "runtime", "calib", "benchmarks", "models", "cli", "__main__")
CALLED = ("labels", "geometry", "quality", "metrics", "metrics.detection", "datasets", "bundle")
RETURNED = {  # a call returns them, or they are an interface: their makers have the examples
    *("AnnotatedImage", "DataSet", "DetectedBoxes", "LookScores", "MaskScores", "OfficialFolder", "PixelScores"),
    *("Protocol", "Recall", "Sample"),
}


def core_modules():
    """The names of all modules of the core."""
    here = Path(qanet.__file__).parent
    names = [f"qanet.{m.name}" for m in pkgutil.iter_modules([str(here)]) if m.name not in ROOMS]
    for name in list(names):
        if (folder := here / name.removeprefix("qanet.")).is_dir():
            names += [f"{name}.{m.name}" for m in pkgutil.iter_modules([str(folder)])]
    return sorted(names)


@pytest.fixture
def examples_folder(tmp_path, monkeypatch):
    """The current folder, with what the examples read: CCP/, a person in each of two photographs."""
    for folder in ("photos", "labels"):
        (tmp_path / "CCP" / folder).mkdir(parents=True)
    labels = np.zeros((48, 32), np.uint8)
    labels[8:40, 8:24] = 4
    for split, name in (("train", "0001"), ("val", "0002")):
        cv2.imwrite(str(tmp_path / "CCP" / "photos" / f"{name}.jpg"), np.full((48, 32, 3), 90, np.uint8))
        cv2.imwrite(str(tmp_path / "CCP" / "labels" / f"{name}.png"), labels)
        (tmp_path / "CCP" / f"{split}.txt").write_text(name)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", core_modules())
def test_examples_run(name, examples_folder):
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.failed == 0, f"{outcome.failed} of {outcome.attempted} examples of {name} failed: see stdout"


@pytest.mark.parametrize("name", CALLED)
def test_what_a_user_calls_has_an_example(name):
    module = importlib.import_module(f"qanet.{name}")
    names = getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")])
    things = {n: getattr(module, n) for n in names}
    without = [
        n
        for n, thing in things.items()
        if (inspect.isfunction(thing) or inspect.isclass(thing))
        and thing.__module__.startswith(f"qanet.{name}")
        and n not in RETURNED
        and ">>>" not in (thing.__doc__ or "")
    ]
    assert without == []
