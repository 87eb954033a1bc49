"""Detectors of other people, known by what they give out: small graphs that have the form and say known boxes."""

import numpy as np
import pytest

from qanet.errors import QanetError
from qanet.runtime.detectors.open import OnnxDetector

HW = (64, 96)  # the network's input
IMAGE = np.zeros((120, 160, 3), np.uint8)  # ratio 64/120 fits; 85 columns, 5 left of them where it is centred
PERSON = (30.0, 15.0, 75.0, 105.0)  # the box that every graph says, in image pixels


@pytest.fixture
def detector(tmp_path):
    """Writes a graph of constants behind an image input, and opens it."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    def build(outputs, image=("images", [1, 3, *HW]), sizes=False, names=None, uses_sizes=False, **options):
        inputs = [helper.make_tensor_value_info(image[0], onnx.TensorProto.FLOAT, image[1])]
        if sizes:
            inputs.append(helper.make_tensor_value_info("orig_target_sizes", onnx.TensorProto.INT64, ["N", 2]))
        nodes = [
            helper.make_node("ReduceMean", [image[0]], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        ]
        constants, infos = {"zero": np.array(0, np.float32)}, []
        for name, value in outputs.items():
            constants[f"{name}_value"] = value
            integer = value.dtype.kind == "i"
            if integer:
                nodes.append(helper.make_node("Cast", ["nothing"], [f"{name}_cast"], to=onnx.TensorProto.INT64))
            last = f"{name}_cast" if integer else "nothing"
            if uses_sizes and name == "boxes":  # the graph scales to the image, as these exports do
                nodes += [
                    helper.make_node("Cast", ["orig_target_sizes"], ["sizes_float"], to=onnx.TensorProto.FLOAT),
                    helper.make_node("Tile", ["sizes_float", "twice"], ["sizes_four"]),
                    helper.make_node("Mul", ["boxes_value", "sizes_four"], ["boxes_scaled"]),
                ]
                constants["twice"] = np.array([1, 2], np.int64)
            source = "boxes_scaled" if uses_sizes and name == "boxes" else f"{name}_value"
            nodes.append(helper.make_node("Add", [source, last], [name]))
            kind = onnx.TensorProto.INT64 if integer else onnx.TensorProto.FLOAT
            infos.append(helper.make_tensor_value_info(name, kind, list(value.shape)))
        initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
        graph = helper.make_graph(nodes, "made", inputs, infos, initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        if names is not None:
            helper.set_model_props(model, {"names": str(names)})
        (tmp_path / "made.onnx").write_bytes(model.SerializeToString())
        return OnnxDetector(tmp_path / "made.onnx", threads=1, **options)

    return build


def network_box(offset=(0, 0), hw=HW):
    """PERSON in network pixels of a letterbox."""
    ratio = min(hw[0] / IMAGE.shape[0], hw[1] / IMAGE.shape[1])
    return np.array(PERSON, np.float32) * ratio + np.array([*offset, *offset], np.float32)


def centre_size(box):
    """xyxy as centre and size."""
    return np.concatenate([(box[:2] + box[2:]) / 2, box[2:] - box[:2]])


ANCHORS = sum((HW[0] // s) * (HW[1] // s) for s in (8, 16, 32))


def raw_ultralytics(classes, person):
    """(1, 4 + K, A): a person seen by two anchors, a dog seen better, a person hardly seen."""
    raw = np.zeros((1, 4 + classes, ANCHORS), np.float32)
    box = centre_size(network_box(((96 - 85) // 2, 0)))
    raw[0, :4, 3], raw[0, 4 + person, 3] = box, 0.9
    raw[0, :4, 4], raw[0, 4 + person, 4] = box + [1, 0, 0, 0], 0.8  # suppressed
    raw[0, :4, 7], raw[0, 4 + (person + 1) % classes, 7] = [40, 40, 20, 20], 0.95 if classes > 1 else 0
    raw[0, :4, 9], raw[0, 4 + person, 9] = [10, 40, 9, 20], 0.2
    return raw


def yolox(classes=80):
    """(1, A, 5 + K): the person in the cell (2, 4) of stride 8."""
    raw = np.zeros((1, ANCHORS, 5 + classes), np.float32)
    x, y, width, height = centre_size(network_box())
    anchor = 4 * (HW[1] // 8) + 2
    raw[0, anchor, :4] = [x / 8 - 2, y / 8 - 4, np.log(width / 8), np.log(height / 8)]
    raw[0, anchor, 4:6] = [1, 0.9]
    return raw


def end_to_end(person=0):
    """(1, N, 6), best first, padded with zeros: a person, a dog, a person hardly seen."""
    rows = np.zeros((1, 10, 6), np.float32)
    rows[0, 0] = [*network_box(((96 - 85) // 2, 0)), 0.9, person]
    rows[0, 1] = [1, 2, 30, 40, 0.8, person + 16]
    rows[0, 2] = [50, 2, 70, 40, 0.2, person]
    return rows


def batched_set():
    """labels, boxes (as shares of the image), scores of a DETR."""
    shares = np.array(PERSON, np.float32) / [160, 120, 160, 120]
    boxes = np.array([[[0, 0, 0.1, 0.1], shares, [0, 0, 0.5, 0.5]]], np.float32)
    return {"labels": np.array([[16, 0, 0]]), "boxes": boxes, "scores": np.array([[0.95, 0.9, 0.2]], np.float32)}


def flat_set():
    """boxes, labels, scores of torchvision; its person is class 1."""
    boxes = np.array([[0, 0, 9, 9], network_box(), [0, 0, 30, 30]], np.float32)
    return {"boxes": boxes, "labels": np.array([18, 1, 1]), "scores": np.array([0.95, 0.9, 0.2], np.float32)}


def masks():
    """What Mask R-CNN adds."""
    return {"masks": np.zeros((3, 1, *HW), np.float32)}


FORMS = {
    "yolox": ({"output": yolox()}, {}, "Yolox"),
    "yolox of one class": ({"output": yolox(1)}, {}, "Yolox"),
    "v8, v11": ({"output0": raw_ultralytics(80, 0)}, {}, "UltralyticsRaw"),
    "one class": ({"output0": raw_ultralytics(1, 0)}, {}, "UltralyticsRaw"),
    "named classes": ({"output0": raw_ultralytics(5, 2)}, {"names": {0: "cat", 2: "Person"}}, "UltralyticsRaw"),
    "names that are none": ({"output0": raw_ultralytics(80, 0)}, {"names": "people, and more"}, "UltralyticsRaw"),
    "end to end": ({"output0": end_to_end()}, {}, "UltralyticsEndToEnd"),
    "end to end, named": ({"output0": end_to_end(3)}, {"names": {3: "person"}}, "UltralyticsEndToEnd"),
    "rt-detr, d-fine": (batched_set(), {"sizes": True, "uses_sizes": True}, "DetrSet"),
    "free batch": (batched_set(), {"sizes": True, "uses_sizes": True, "image": ("images", ["N", 3, *HW])}, "DetrSet"),
    "torchvision": (flat_set(), {"image": ("images", [3, *HW])}, "TorchvisionSet"),
    "torchvision batch": (flat_set() | masks(), {}, "TorchvisionSet"),
}


@pytest.mark.parametrize(("outputs", "options", "family"), FORMS.values(), ids=FORMS)
def test_a_known_form_gives_the_person_and_nobody_else(detector, outputs, options, family):
    opened = detector(outputs, **options)
    assert type(opened.form).__name__ == family
    found = opened.detect(IMAGE)
    assert len(found) == 1 and found.scores[0] == pytest.approx(0.9)
    assert abs(found.boxes[0] - PERSON).max() < 0.75  # the letterbox rounds to whole network pixels


@pytest.mark.parametrize("form", ["v8, v11", "end to end", "rt-detr, d-fine", "torchvision"])
def test_the_tracker_gets_the_doubtful_too(detector, form):
    outputs, options, _ = FORMS[form]
    found = detector(outputs, **options, score_threshold=0.1).detect(IMAGE)
    assert len(found) == 2 and np.allclose(found.scores, [0.9, 0.2])


def test_free_height_and_width_become_the_exporters_default(detector):
    anchors = sum((640 // s) ** 2 for s in (8, 16, 32))
    raw = np.zeros((1, 84, anchors), np.float32)
    raw[0, :4, 11] = centre_size(network_box((0, (640 - 480) // 2), (640, 640)))
    raw[0, 4, 11] = 0.9
    found = detector({"output0": raw}, image=("images", ["batch", 3, "height", "width"])).detect(IMAGE)
    assert abs(found.boxes[0] - PERSON).max() < 0.3


def test_an_image_goes_in_as_the_family_wants_it(detector):
    """The colour order and the range are the family's: a picture of one colour tells."""
    image = np.full((64, 96, 3), (255, 102, 51), np.uint8)  # BGR
    wanted = {"yolox": [255, 102, 51], "v8, v11": [0.2, 0.4, 1], "rt-detr, d-fine": [0.2, 0.4, 1]}
    for form, channels in wanted.items():
        outputs, options, _ = FORMS[form]
        blob = detector(outputs, **options).form.feed(image)[0]
        assert blob.shape == (1, 3, *HW) and np.allclose(blob[0, :, 20, 40], channels)


def test_boxes_that_are_no_boxes_are_left_out(detector):
    rows = end_to_end()
    rows[0, 0, 0], rows[0, 1, 5] = np.nan, 0
    rows[0, 1, :4] = [50, 50, 50.2, 60]
    assert len(detector({"output0": rows}).detect(IMAGE)) == 0


UNKNOWN = {
    "no person among the classes": ({"output0": np.zeros((1, 4, ANCHORS), np.float32)}, {}),
    "other anchors": ({"output0": np.zeros((1, 3 * ANCHORS, 85), np.float32)}, {}),
    "logits": ({"logits": np.zeros((1, 300, 80), np.float32), "pred_boxes": np.zeros((1, 300, 4), np.float32)}, {}),
    "a set without sizes": (batched_set(), {}),
    "no image": ({"output0": end_to_end()}, {"image": ("x", [1, 7])}),
}


@pytest.mark.parametrize(("outputs", "options"), UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_form_is_told_what_was_seen_and_what_is_known(detector, outputs, options):
    with pytest.raises(QanetError) as raised:
        detector(outputs, **options)
    line = str(raised.value)
    assert "made.onnx is not a detector this version knows" in line and "; next: export it" in line
    assert all(name in line for name in ("YOLOX", "Ultralytics", "RT-DETR", "D-FINE", "torchvision"))
    name, value = next(iter(outputs.items()))
    assert f"{name} " in line and f"({', '.join(map(str, value.shape))})" in line
