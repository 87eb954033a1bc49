"""The way to the shipped network: which commands, in which order, and that what is done is not done again."""

import importlib.util

import pytest

from qanet.benchmarks.lab import rebuild_parser as rebuild
from qanet.errors import QanetError

ROOMS = ("labelled/park", "labelled/bav_classroom", "partial/ring", "unlabelled/portraits", "without_people/wood")


@pytest.fixture
def arguments(tmp_path):
    for room in ROOMS:
        (tmp_path / "people" / room).mkdir(parents=True)
    names = ("data", "tagged", "people", "models", "initial-weights", "output")
    return [text for name in names for text in (f"--{name}", str(tmp_path / name))]


def test_the_steps_come_in_order_and_use_what_came_before(arguments, monkeypatch, tmp_path):
    run = []

    class Done:
        returncode = 0

    monkeypatch.setattr(rebuild.subprocess, "run", lambda command, check: run.append(command) or Done)
    assert rebuild.main(arguments) == 0
    assert [command[2].rsplit(".", 1)[-1] for command in run[:-1]] == [
        "detector_labels",
        "silhouettes",
        "silhouettes",
        "pseudo_labels",
        "qanet",
        "people_parts",
        "qanet",
    ]
    assert run[-1][2].startswith("qanet.train.weights") and f"{tmp_path / 'initial-weights'}:0.2" in run[-1]
    assert all(importlib.util.find_spec(command[2]) for command in run)
    several, scenes = run[1], run[2]
    assert any(text.endswith("park") for text in several) and any(text.endswith("boxes/portraits") for text in several)
    assert [text for text in scenes if text.startswith(str(tmp_path / "people"))] == [
        str(tmp_path / "people" / "labelled" / "bav_classroom")
    ]
    assert str(tmp_path / "output" / "first" / "model.safetensors") in run[-2]
    assert run[-1][-1] == str(tmp_path / "output" / "model.safetensors")


def test_what_is_there_is_not_made_again(arguments, monkeypatch, tmp_path, capsys):
    made = tmp_path / "output" / "boxes" / "portraits"
    made.mkdir(parents=True)
    (made / "persons.json").write_text("{}")
    assert rebuild.main([*arguments, "--dry-run"]) == 0
    shown = capsys.readouterr().err
    assert "there already" in shown and "detector_labels" not in shown


def test_a_step_that_fails_ends_it(arguments, monkeypatch):
    class Failed:
        returncode = 2

    monkeypatch.setattr(rebuild.subprocess, "run", lambda command, check: Failed)
    with pytest.raises(QanetError, match="detector_labels failed"):
        rebuild.main(arguments)
