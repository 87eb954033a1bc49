"""`qanet inspect`: bundles, checkpoints and recipes, told apart and sized, whatever room does the counting."""

import json

import pytest

from qanet.__main__ import main
from qanet.cli import inspect
from qanet.errors import QanetError


@pytest.fixture
def describe(monkeypatch):
    """Puts a function in the place of `describe_network`; without PyTorch there is none to replace."""
    pytest.importorskip("torch", reason="networks are described with PyTorch")
    from qanet.train import describe

    return lambda function: monkeypatch.setattr(describe, "describe_network", function)


def test_a_bundle_tells_its_size(shared_tiny_bundle, capsys, monkeypatch):
    counted = []

    def graph_size(data):
        counted.append(data)
        return {"parameters": 1_250_000, "multiply_adds": 340_000_000}

    monkeypatch.setattr("qanet.export.graphs.source.graph_size", graph_size)
    inspect.main([str(shared_tiny_bundle)])
    assert "1.25 million parameters" in (text := capsys.readouterr().out) and "0.34 billion multiply-adds" in text
    assert counted == [(shared_tiny_bundle / "model.onnx").read_bytes()]
    inspect.main([str(shared_tiny_bundle), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert (document["multiply_adds"], document["files_verified"], document["labels"]) == (340_000_000, True, "ccp13")


@pytest.mark.parametrize(
    "name", ["cihp-r50c-512x384", "FILE/model.safetensors", "FILE/last.pt", "FILE/model_latest.pth"]
)
def test_what_is_no_bundle_is_a_network(tmp_path, capsys, name, describe):
    name = name.replace("FILE", str(tmp_path))
    if "/" in name:
        (tmp_path / name).write_bytes(b"tensors")
    parts = {"total": {"parameters": 31_471_733, "multiply_adds": 42_661_000_000}}
    recipe = {
        "name": "cihp-r50c-512x384",
        "backbone": "r50c",
        "labels": "cihp20",
        "input_hw": [512, 384],
        "epochs": 140,
    }
    asked = []

    def describe_network(source):
        asked.append(source)
        return {"recipe": recipe, "parts": parts, "checkpoint": source, "epoch": 7}

    describe(describe_network)
    assert inspect.main([name]) == 0
    text = capsys.readouterr().out
    assert asked == [name] and "31.47" in text and "42.66" in text and "512x384" in text and "epoch 7 of 140" in text


@pytest.mark.parametrize("name", ["gone.qanet", "gone.safetensors", "gone.pth", "folder/gone", "FOLDER"])
def test_what_can_be_no_recipe_is_not_looked_up_as_one(tmp_path, name):
    with pytest.raises(QanetError, match="no bundle"):
        inspect.main([name.replace("FOLDER", str(tmp_path))])


def test_recipes_are_sized_by_the_command(capsys):
    pytest.importorskip("torch", reason="sizes of recipes are counted with PyTorch")
    assert main(["inspect", "celebamask19-lite0", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    total = document["parts"].pop("total")
    assert document["recipe"]["backbone"] == "lite0-slim" and total["parameters"] < 3e6
    assert total["multiply_adds"] == sum(part["multiply_adds"] for part in document["parts"].values())
    assert main(["inspect", "cihp-r50"]) == 2
    assert "next: qanet inspect cihp-r50c-512x384" in capsys.readouterr().err
