"""`train` and `qanet train`: settings, results, resuming, and errors that name the next step."""

import inspect
import json
import re

import pytest
import torch
from person_cases import write_people

from qanet.__main__ import main
from qanet.train.recipes import recipe
from qanet.train.run import train
from qanet.train.weights import load_weights

SMALL = {
    "input_hw": (64, 64),
    "batch_size": 4,
    "epochs": 1,
    "width": 16,
    "iou_hidden": 16,
    "backbone": "lite0-slim",
    "pretrained": False,
}


@pytest.fixture(scope="module")
def trained(small_ccp_of_the_module, tmp_path_factory):
    """The result of a run of one epoch, its folder, and the lines that it reported."""
    folder, lines = tmp_path_factory.mktemp("run"), []
    result = train("ccp13-lite0", small_ccp_of_the_module, folder, device="cpu", report=lines.append, **SMALL)
    return result, folder, lines


def test_a_run_returns_its_checkpoint_recipe_and_scores(trained):
    result, folder, lines = trained
    assert result.weights == folder / "model.safetensors" and result.epochs == 1 and result.seconds > 0
    assert result.recipe == recipe("ccp13-lite0", SMALL) == load_weights(result.weights)[1]
    assert set(result.scores) == {"val_crop_miou", "val_crop_pixel_accuracy"}
    assert all(0 <= value <= 1 for value in result.scores.values())
    assert "4 people, on cpu" in lines[1] and "never occur" in lines[0] and "val mIoU of crops" in lines[2]


def test_a_finished_run_is_not_trained_again(trained, small_ccp_of_the_module):
    before, folder, _ = trained
    lines = []
    again = train(before.recipe, small_ccp_of_the_module, folder, device="cpu", report=lines.append)
    assert (again.epochs, again.seconds, again.scores) == (1, before.seconds, {})
    assert lines[0] == f"resuming {folder} after epoch 1 of 1" and len(lines) == 3


def test_the_state_to_resume_from_names_no_module_of_this_package(trained):
    _, folder, _ = trained
    assert b"qanet." not in (folder / "last.pt").read_bytes()
    assert set(torch.load(folder / "last.pt", weights_only=True)) >= {"recipe", "epoch", "model", "ema", "optimizer"}


def test_torch_is_left_as_it_was(trained):
    assert not torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark


def test_the_command_writes_one_document(trained, small_ccp_of_the_module, capsys):
    result, folder, _ = trained
    settings = [f"{key}={'64x64' if key == 'input_hw' else value}" for key, value in SMALL.items()]
    command = ["train", "ccp13-lite0", *settings, "--data", str(small_ccp_of_the_module), "--output", str(folder)]
    assert main([*command, "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "weights": str(result.weights),
        "epochs": 1,
        "seconds": round(result.seconds, 1),
    }


def test_a_detection_recipe_scores_what_was_held_back(tmp_path):
    settings = {key: value for key, value in SMALL.items() if key not in ("backbone", "iou_hidden")}
    people = write_people(tmp_path / "people", count=12)
    (people / "unlabelled").rename(tmp_path / "elsewhere")
    result = train("person-lite0", people, tmp_path / "run", images=4, device="cpu", report=lambda _: None, **settings)
    assert set(result.scores) == {"val_ap50"} and 0 <= result.scores["val_ap50"] <= 1
    assert (tmp_path / "run" / "epochs" / "001.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ccp13-lite", "--data", "CCP"], "unknown recipe 'ccp13-lite'.*next: qanet train ccp13-lite0"),
        (["ccp13-lite0", "epochs", "--data", "CCP"], "bad setting .expected key=value, got epochs"),
        (["ccp13-lite0", "epoch=1", "--data", "CCP"], "has no key 'epoch'.*did you mean epochs"),
        (["ccp13-lite0", "--data", "NOWHERE"], "no data set at NOWHERE .*--format"),
        (["ccp13-lite0", "--data", "CCP", "--format", "coco"], "ccp13-lite0 does not learn from coco .expected ccp"),
        (["ccp13-lite0", "--data", "CCP", "--people", "DIR", "half"], "bad share of people .*such as 0.4, got half"),
        (["ccp13-lite0", "--data", "CCP", "--people", "NOWHERE", "0.5"], "no index of people at .*docs/training.md"),
        (["ccp13-lite0", "--data", "CCP", "--device", "gpu"], "no such device .expected auto, cpu, cuda or cuda:N"),
    ],
)
def test_mistakes_are_named_with_the_next_step(arguments, message, small_ccp, tmp_path, capsys):
    arguments = [str(small_ccp) if argument == "CCP" else argument for argument in arguments]
    assert main(["train", *arguments, "--output", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "qanet val" not in error
    assert re.search(message, error), error


def test_the_options_of_the_function_do_not_hide_a_setting():
    options = set(inspect.signature(train).parameters) - {"settings"}
    assert not options & set(vars(recipe("ccp13-lite0")))
