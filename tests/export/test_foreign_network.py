"""Networks of one's own: modules of every output form and a foreign ONNX file become bundles that parse."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from qanet.errors import QanetError
from qanet.export.foreign import export_module, export_onnx
from qanet.labels import LabelSet
from qanet.runtime.parser import load

LABELS = LabelSet("hats", ("background", "hat", "coat"))
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class Small(nn.Module):
    """A segmenter of stride 4 whose logits come out as a library's do."""

    def __init__(self, form, channels=3, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.form, self.body = form, nn.Conv2d(3, channels, 7, stride=4, padding=3)

    def forward(self, x):
        logits = 4 * self.body(x)
        forms = {
            "tensor": lambda: logits,
            "dict": lambda: {"out": logits, "aux": logits * 0},  # torchvision
            "tuple": lambda: (logits, logits.mean((1, 2, 3))),  # with an IoU head
            "list": lambda: [logits],  # mmseg
            "object": lambda: SimpleNamespace(logits=logits),  # Hugging Face
        }
        return forms[self.form]()


@pytest.mark.parametrize("form", ["tensor", "dict", "tuple", "list", "object"])
def test_every_form_of_output_is_recognised(form, tmp_path):
    lines = []
    bundle = export_module(Small(form), tmp_path / "mine", LABELS, input_hw=(64, 64), **IMAGENET, report=lines.append)
    assert bundle.labels == LABELS and bundle.view == "person"
    assert bundle.qam_weights == ((1, 0.5, 3) if form == "tuple" else (1, 0, 3))
    assert ("predicted IoU" in bundle.quality_of) == (form == "tuple") and len(lines) == 3
    image = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    people = load(bundle.path, device="cpu", precision="fp32")(image, boxes=[[5, 5, 60, 80]])
    assert people.label_set == LABELS and len(people) <= 1


def test_a_network_of_whole_pictures_runs_without_a_detector(tmp_path):
    bundle = export_module(Small("tensor"), tmp_path / "mine", LABELS, input_hw=(64, 64), **IMAGENET, view="whole")
    parser = load(bundle.path, device="cpu", precision="fp32")
    image = np.random.default_rng(1).integers(0, 256, (90, 130, 3), np.uint8)
    (whole,) = parser(image)
    assert whole.roi == (0, 0, 130, 90) and parser.detector.name == "whole image"
    box = [20, 10, 77, 70]
    (person,) = parser(image, boxes=[box])
    x0, y0, x1, y1 = person.roi
    assert (x0, y0, x1, y1) == (20, 10, 77, 70)
    assert np.mean(person.labels == whole.labels[y0:y1, x0:x1]) > 0.9  # all but the border of the cells


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": None, "std": None}, "normalis"),
        ({"labels": LabelSet("many", ("background", "a", "b", "c", "d"))}, "channels do not fit"),
        ({"input_hw": (50, 64)}, "bad input size"),
        ({"view": "face"}, "unknown view"),
    ],
    ids=["normalisation", "classes", "size", "view"],
)
def test_what_does_not_fit_is_asked_for(change, message, tmp_path):
    options = {"labels": LABELS, "input_hw": (64, 64), **IMAGENET, **change}
    with pytest.raises(QanetError, match=message):
        export_module(Small("tensor"), tmp_path / "mine", **options)


def test_a_foreign_onnx_file_becomes_a_bundle(shared, tmp_path):
    source = shared / "data" / "models" / "pan_skin_clothes_hair.onnx"
    labels, lines = LabelSet("shc", ("background", "skin", "clothes", "hair")), []
    bundle = export_onnx(source, tmp_path / "shc", labels, **IMAGENET, report=lines.append)
    assert "without the Resize and Sigmoid behind it" in lines[0] and "no channel for the background" in lines[2]
    assert bundle.input_hw == (512, 512) and bundle.quality_of == "box and pixel score"
    with pytest.raises(QanetError, match="another stride"):
        export_onnx(source, tmp_path / "again", labels, **IMAGENET, stride=8)
