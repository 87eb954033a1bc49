"""`qanet export`, `calibrate`, `build`, `val`, `inspect` one after another on a small network, and their mistakes."""

import json

import cv2
import numpy as np
import pytest
import torch
from cpu_types import BUILT_HERE
from exported_networks import exports_kept

from qanet.__main__ import main as qanet
from qanet.bundle import open_bundle
from qanet.train.networks import build
from qanet.train.recipes import recipe
from qanet.train.weights import save_weights


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A pretrained backbone with small random heads, and a data set of three drawn people."""
    torch.manual_seed(0)
    settings = recipe("ccp13-lite0", {"width": "16", "iou_hidden": "16", "input_hw": "96x64"})
    network = build(settings)
    network.backbone.load_pretrained()
    network.parsing_head.classify.weight.data.normal_(std=0.5)
    folder = tmp_path_factory.mktemp("chain")
    save_weights(folder / "model.safetensors", network, settings)
    data = folder / "data"
    for name in ("photos", "labels"):
        (data / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(3):
        image = cv2.resize(rng.integers(0, 256, (12, 9, 3), np.uint8), (90, 120), interpolation=cv2.INTER_CUBIC)
        raw = np.zeros((120, 90), np.uint8)
        raw[20:60, 20:70], raw[60:110, 20:70] = 51, 31
        cv2.imwrite(str(data / "photos" / f"{number}.png"), image)
        cv2.imwrite(str(data / "labels" / f"{number}.png"), raw)
    return folder


@pytest.fixture(scope="module")
def bundle(checkpoint):
    path = checkpoint / "small.qanet"
    with exports_kept():
        assert qanet(["export", str(checkpoint / "model.safetensors"), "--output", str(path)]) == 0
    return path


def test_the_chain_from_checkpoint_to_engines(bundle, checkpoint, capsys):
    assert qanet(["build", str(bundle), "--precision", "int8"]) == 2
    assert "qanet calibrate" in capsys.readouterr().err
    assert qanet(["calibrate", str(bundle), "--data", str(checkpoint / "data"), "--method", "minmax", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["crops"] == 3
    assert qanet(["build", str(bundle), "--runtime", "openvino", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [e["precision"] for e in document["engines"]] == list(BUILT_HERE)
    made = open_bundle(bundle)
    made.verify()
    for entry in made.engines:
        asked = {"fp32": "fp32", "int8": "int8"}.get(entry["precision"])
        shares = entry["census"]["multiply_add_shares"]
        assert asked is None or shares[asked] > 0.8
        assert entry["outputs"] == ["logits", "iou_scores"]
    for precision in BUILT_HERE:
        arguments = [
            "val",
            str(bundle),
            "--data",
            str(checkpoint / "data"),
            "--precision",
            precision,
            "--save",
            "--json",
        ]
        assert qanet(arguments) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["images"] == 3 and report["precision"] == precision and 0 <= report["miou"] <= 1
    assert qanet(["inspect", str(bundle)]) == 0
    text = capsys.readouterr().out
    assert "int8" in text and "openvino" in text and "mIoU" in text


def test_the_same_checkpoint_and_images_give_the_same_bytes(bundle, checkpoint):
    made = []
    for folder in ("one", "two"):
        path = checkpoint / folder / "same.qanet"
        with exports_kept():  # that an export repeats its bytes is tested beside the graph
            assert qanet(["export", str(checkpoint / "model.safetensors"), "--output", str(path)]) == 0
        assert qanet(["calibrate", str(path), "--data", str(checkpoint / "data"), "--method", "minmax"]) == 0
        made.append({str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()})
    assert made[0].keys() == made[1].keys() >= {"manifest.json", "model.onnx", "scales.json", "model.int8.onnx"}
    assert [name for name in made[0] if made[0][name] != made[1][name]] == []


def test_calibrating_again_drops_what_no_longer_holds(bundle, checkpoint):
    copy = checkpoint / "again.qanet"
    arguments = ["calibrate", str(bundle), "--data", str(checkpoint / "data"), "--output", str(copy)]
    assert qanet([*arguments, "--method", "percentile"]) == 0
    again = open_bundle(copy)
    assert not [e for e in again.engines if e["precision"] == "int8"] and "int8" not in again.manifest["accuracy"]
    assert json.loads(again.read("scales.json"))["method"].startswith("percentile")


def test_engines_for_gpus_are_built_without_one(bundle, capsys):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'qanet-edge[rtx]'")
    arguments = [
        "build",
        str(bundle),
        "--runtime",
        "tensorrt-rtx",
        "--target",
        "sm_86,sm_120",
        "--precision",
        "fp32,fp16",
    ]
    assert qanet([*arguments, "--json"]) == 0
    engines = json.loads(capsys.readouterr().out)["engines"]
    assert [e["targets"] for e in engines] == [["sm_86", "sm_120"]] * 2
    assert qanet(["build", str(bundle), "--runtime", "tensorrt-rtx", "--target", "sm_87", "--precision", "fp32"]) == 2
    assert "sm_86" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "BUNDLE", "--precision", "int4"], "unknown precision 'int4'"),
        (["build", "BUNDLE", "--runtime", "tensorflow"], "unknown runtime"),
        (["build", "nobody"], "no bundle 'nobody'"),
        (["calibrate", "BUNDLE", "--data", "nowhere"], "nowhere: no such file"),
        (["calibrate", "BUNDLE", "--data", "DATA", "--method", "magic"], "invalid choice"),
        (["export", "nothing.safetensors", "--output", "x"], "no checkpoint at"),
        (["export", "DATA/photos/0.png", "--output", "x"], "not a safetensors"),
        (["val", "BUNDLE", "--data", "nowhere"], "no data set at nowhere"),
        (["val", "BUNDLE", "--data", "DATA", "--precision", "int4"], "unknown precision"),
        (["train", "ccp13-lite0", "--data", "nowhere"], "no data set"),
        (["train", "ccp13-lite0", "epochs", "--data", "DATA"], "bad setting"),
        (["inspect", "DATA"], "something else"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(bundle, checkpoint, capsys, arguments, message):
    places = {"BUNDLE": str(bundle), "DATA": str(checkpoint / "data")}
    given = [places.get(a, a.replace("DATA/", f"{checkpoint / 'data'}/")) for a in arguments]
    assert qanet(given) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error


def test_doctor_tells_what_this_machine_can(capsys):
    assert qanet(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["can"]["parse on the CPU"] is True and facts["packages"]["numpy"]
    assert qanet(["doctor"]) == 0
    assert "parse on the CPU" in capsys.readouterr().out
