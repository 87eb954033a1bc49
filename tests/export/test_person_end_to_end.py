"""Drawn people -> `qanet train` -> export -> calibration -> engines -> the runtime's detector, on a tiny recipe."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from cpu_types import BUILT_HERE
from exported_networks import exports_kept
from person_cases import write_people

import qanet
from qanet.__main__ import main
from qanet.bundle import open_bundle
from qanet.errors import QanetError
from qanet.export.command import export_checkpoint
from qanet.export.release import release
from qanet.runtime.detectors.open import PersonDetector
from qanet.train.detection.trainer import detect
from qanet.train.recipes import RECIPES, Recipe
from qanet.train.weights import load_weights

RECIPE = Recipe(
    "person-tiny",
    "personbox1",
    "detection",
    (64, 96),
    backbone="lite0-slim",
    width=16,
    batch_size=4,
    epochs=2,
    repeat_threshold=0.0,
    ema_decay=0.0,
)

pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a whole run: people/, run/, tiny.qanet (calibrated, with engines)."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("person")
    write_people(folder / "people", 12)
    shutil.rmtree(folder / "people" / "unlabelled")  # there are no teachers
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, RECIPE.name, RECIPE)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        arguments = ["--data", folder / "people", "--images", 24, "--output", folder / "run", "--workers", 1]
        command = ["train", RECIPE.name, *map(str, arguments)]
        assert main(command) == 0
        assert main([*command, "--json"]) == 0  # a finished run only writes its weights again
        with exports_kept():
            export_checkpoint(folder / "run" / "model.safetensors", folder / "tiny.qanet")
        bundle = str(folder / "tiny.qanet")
        assert (
            main(
                [
                    "calibrate",
                    bundle,
                    "--data",
                    str(folder / "people" / "labelled" / "drawn" / "images"),
                    "--crops",
                    "4",
                ]
            )
            == 0
        )
        assert main(["build", bundle, "--precision", "fp32,fp16,int8", "--runtime", "openvino", "--verify"]) == 0
    return folder


def frame():
    image = np.full((96, 128, 3), 90, np.uint8)
    image[20:80, 40:65] = (30, 30, 220)
    return image


def test_the_run_is_logged_with_its_precision(run):
    lines = (run / "run" / "log.csv").read_text().splitlines()
    assert len(lines) == 3 and "val_ap50" in lines[0].split(",")
    assert (run / "run" / "last.pt").is_file()


def test_the_bundle_holds_the_contract(run):
    import onnxruntime

    bundle = open_bundle(run / "tiny.qanet")
    assert bundle.labels.name == "personbox1" and bundle.manifest["made"]["weights"] == "fp16"
    assert {e["precision"] for e in bundle.engines} == set(BUILT_HERE)
    assert all(tuple(e["outputs"]) == ("boxes", "scores") for e in bundle.engines)
    plain = len(bundle.graph("fp32"))
    assert len(bundle.read("model.onnx")) < 0.6 * plain and len(bundle.read("model.int8.onnx")) < 0.4 * plain
    cells = 8 * 12 + 4 * 6 + 2 * 3
    for data in (bundle.read("model.onnx"), bundle.graph("fp32")):
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        assert [i.name for i in session.get_inputs()] == ["crops"]
        shapes = {o.name: o.shape[1:] for o in session.get_outputs()}
        assert shapes == {"boxes": [cells, 4], "scores": [cells]}
    int8 = json.loads(bundle.read("scales.json"))
    assert "heads.*.predict" in int8["keep"]


@pytest.mark.parametrize("device", ["cpu", "onnxruntime"])
def test_the_runtime_finds_what_training_found(run, device):
    network, recipe = load_weights(run / "run" / "model.safetensors")
    image = frame()
    with torch.autocast("cpu", enabled=False):
        boxes, scores = detect(network, image, recipe.input_hw, torch.device("cpu"))
    detector = PersonDetector(run / "tiny.qanet", 0.0, device, "fp32", threads=1)
    found = detector.detect(image)
    assert len(found) > 0 and detector.name == "tiny"
    assert found.scores[0] == pytest.approx(scores[0], abs=0.02)  # training computes in BF16
    assert np.abs(found.boxes - boxes[0]).max(1).min() < 3  # two boxes of a tiny network may be as sure as each other
    assert (np.diff(found.scores) <= 0).all() and (found.boxes >= 0).all() and (found.boxes[:, 2] <= 128).all()


def test_int8_agrees_with_fp32_about_the_best_box(run):
    found = {p: PersonDetector(run / "tiny.qanet", 0.0, "cpu", p, 1).detect(frame()) for p in ("fp32", "int8")}
    assert found["int8"].scores[0] == pytest.approx(found["fp32"].scores[0], abs=0.1)


def test_thresholds_sizes_and_odd_images(run):
    assert len(PersonDetector(run / "tiny.qanet", 1.01, "cpu", "fp32", 1).detect(frame())) == 0
    detector = PersonDetector(run / "tiny.qanet", 0.0, "cpu", "fp32", 1)
    for hw in ((1, 1), (3, 400), (400, 3), (64, 96), (500, 700)):
        found = detector.detect(np.zeros((*hw, 3), np.uint8))
        assert found.boxes.shape == (len(found), 4) and (found.boxes <= np.array([hw[1], hw[0]] * 2)).all()


def test_what_is_no_detector_and_what_is_no_parser_is_told(run, tmp_path, capsys):
    with pytest.raises(QanetError, match="ccp13-lite0 does not detect people .expected labels personbox1"):
        PersonDetector("ccp13-lite0")
    with pytest.raises(QanetError, match="gives boxes of people, not parsings"):
        qanet.load(run / "tiny.qanet")
    picture = tmp_path / "street.png"
    cv2.imwrite(str(picture), frame())
    arguments = ["parse", str(picture), "--device", "cpu", "--threads", "1", "--json"]
    assert main([*arguments, "--detector", str(run / "tiny.qanet")]) == 0
    assert json.loads(capsys.readouterr().out)["detector"] == "tiny"
    assert main([*arguments, "--detector", "person-lite9"]) == 2
    assert "no bundle 'person-lite9'" in capsys.readouterr().err


def test_a_release_is_small_and_still_opens(run, tmp_path):
    copy = tmp_path / "tiny.qanet"
    shutil.copytree(run / "tiny.qanet", copy)
    bundle = open_bundle(copy)
    bundle.manifest["accuracy"] = {p: {"clip.avi": {"recall_strict": 1.0}} for p in ("fp32", "fp16", "int8")}
    bundle.save()
    (tmp_path / "CARD.md").write_text("# tiny\n")
    shipped = release(open_bundle(copy), tmp_path / "CARD.md", tmp_path / "out" / "tiny.qanet")
    assert set(shipped.manifest["files"]) == {"model.onnx", "scales.json", "answers.npz", "MODEL_CARD.md"}
    again, before = (PersonDetector(path, 0.0, "cpu", "fp32", 1).detect(frame()) for path in (shipped.path, copy))
    assert again.scores[0] == pytest.approx(before.scores[0], abs=1e-4)
