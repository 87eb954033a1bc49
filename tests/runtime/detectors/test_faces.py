"""Faces in video: heads are found in people's parsings, framed as in training, and parsed in the same pipeline."""

import json
import re

import numpy as np
import pytest

import qanet
from qanet.__main__ import main
from qanet.bundle import create
from qanet.errors import QanetError
from qanet.labels import CCP13, CELEBAMASK19, CIHP20, PPP7
from qanet.results import Person
from qanet.runtime.detectors.base import NOBODY, Detections
from qanet.runtime.faces import options
from qanet.runtime.faces.detector import (
    FACE_HEIGHT,
    FACE_TOP,
    FACE_WIDTH,
    GUESS,
    FaceDetector,
    HeadDetector,
    frame_of_face,
    frame_of_head,
    frame_of_person,
    guess_frames,
    has_heads,
)
from qanet.runtime.video import pipeline
from qanet.runtime.video.sources import open_source

BLUE, GREEN, CYAN, RED, YELLOW = 1, 2, 3, 4, 6  # corners of the colour cube: bit 0 blue, bit 1 green, bit 2 red
PERSON = {"hair": GREEN, "skin": RED, "upper-clothes": BLUE, "pants": YELLOW}
FACE = {"hair": GREEN, "skin": RED, "cloth": BLUE, "neck": YELLOW}
# In a person of 120 x 200 pixels: colour, x0, y0, x1, y1.
FIGURE = (
    (GREEN, 30, 0, 90, 24),
    (RED, 34, 24, 86, 74),
    (BLUE, 20, 74, 100, 170),
    (RED, 0, 84, 20, 170),
    (YELLOW, 30, 170, 90, 200),
)


def colour_bundle(path, labels, classes):
    """A network made by hand: one convolution of 4x4 pixels that knows a colour for some classes; others never win."""
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    count = labels.num_classes
    weight, bias = np.zeros((count, 3, 4, 4), np.float32), np.full(count, -100, np.float32)
    for name, code in {"background": 0, **classes}.items():
        signs = np.array([1 if code >> bit & 1 else -1 for bit in range(3)], np.float32)
        weight[labels.classes.index(name)] = (4 * signs / (127.5 * 16))[:, None, None]
        bias[labels.classes.index(name)] = -4 * signs.sum()
    nodes = [
        helper.make_node("Cast", ["crops"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planar"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planar", "weight", "bias"], ["logits"], strides=[4, 4]),
        helper.make_node("Mul", ["box_scores", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "iou"], ["iou_scores"]),
    ]
    constants = {"weight": weight, "bias": bias, "zero": np.float32(0), "iou": np.float32(0.9)}
    graph = helper.make_graph(
        nodes,
        "colours",
        [
            helper.make_tensor_value_info("crops", TensorProto.UINT8, ["N", 64, 64, 3]),
            helper.make_tensor_value_info("box_scores", TensorProto.FLOAT, ["N"]),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", count, 16, 16]),
            helper.make_tensor_value_info("iou_scores", TensorProto.FLOAT, ["N"]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    bundle = create(
        path,
        labels=labels.name,
        input_hw=[64, 64],
        graphs={"fp32": "model.onnx"},
        qam_weights=[1, 0.5, 3],
        pixel_score_threshold=0.2,
    )
    bundle.manifest["made"]["recipe"] = {"name": f"{labels.name}-by-hand"}
    bundle.add_file("model.onnx", model.SerializeToString())
    bundle.save()
    return path


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "people": colour_bundle(folder / "people.qanet", CCP13, PERSON),
        "faces": colour_bundle(folder / "faces.qanet", CELEBAMASK19, FACE),
    }


def bgr(code):
    return tuple(255 * (code >> bit & 1) for bit in range(3))


def draw(at):
    """(240, 320, 3) BGR: black, with a figure at each place."""
    image = np.zeros((240, 320, 3), np.uint8)
    for x, y in at:
        for code, x0, y0, x1, y1 in FIGURE:
            image[y + y0 : y + y1, x + x0 : x + x1] = bgr(code)
    return image


class People:
    """A detector that knows where the figures are."""

    name = "people of the drawing"

    def __init__(self, at):
        self.at = at

    def detect(self, image, frame=0):
        boxes = np.array([[x, y, x + 120, y + 200] for x, y in self.at], np.float32).reshape(-1, 4)
        return Detections(boxes, np.linspace(0.9, 0.8, len(boxes), dtype=np.float32))


def parsed(labels, names, box=(0, 0, 120, 200), roi_at=(0, 0)):
    """A person whose label map is the figure, with the class of `names` for each colour."""
    canvas = np.zeros((box[3] - box[1], box[2] - box[0]), np.uint8)
    for code, x0, y0, x1, y1 in FIGURE:
        if code in names:
            canvas[y0:y1, x0:x1] = labels.classes.index(names[code])
    x, y = roi_at
    scores = np.zeros(labels.num_classes - 1, np.float32)
    roi = (x, y, x + canvas.shape[1], y + canvas.shape[0])
    return Person(np.array(box, np.float32) + [x, y, x, y], 1, 1, 1, 1, scores, scores, canvas, roi)


CCP_NAMES = {GREEN: "hair", RED: "skin", BLUE: "upper-clothes", YELLOW: "pants"}
CIHP_NAMES = {GREEN: "hair", RED: "face", BLUE: "upper-clothes", YELLOW: "pants"}


def test_a_face_lies_in_its_frame_as_in_the_training_pictures():
    x0, y0, x1, y1 = frame = frame_of_face([100, 200, 100 + 60.2, 200 + 74.2])
    assert frame.dtype == np.float32 and x1 - x0 == pytest.approx(100) == y1 - y0
    assert (200 - y0) / 100 == pytest.approx(FACE_TOP, abs=1e-4) and (x0 + x1) / 2 == pytest.approx(130.1)
    wide = frame_of_face([0, 0, 90, 74.2])
    assert wide[2] - wide[0] == pytest.approx(90 / FACE_WIDTH) and FACE_HEIGHT > FACE_WIDTH


def test_a_frame_of_a_head_holds_all_of_it():
    x0, y0, x1, y1 = frame_of_head(10, 107, 40, (0, 80))
    assert (x1 - x0, y0) == pytest.approx((100, 7)) and x0 <= 0 and x1 >= 80
    wide = frame_of_head(10, 107, 40, (0, 200))
    assert wide[2] - wide[0] == pytest.approx(200 / 0.859, rel=1e-3) and wide[0] <= 0 and wide[2] >= 200


@pytest.mark.parametrize(
    ("box", "share_of_height"), [((0, 0, 60, 300), 0.11), ((0, 0, 100, 120), 0.3), ((10, 20, 22, 30), 0.3)]
)
def test_a_guess_is_a_square_at_the_top_of_the_box(box, share_of_height):
    ((x0, y0, x1, y1),) = guess_frames([box])
    assert x1 - x0 == pytest.approx(y1 - y0, rel=1e-5) and (x0 + x1) / 2 == pytest.approx((box[0] + box[2]) / 2)
    assert share_of_height < (y1 - y0) / (box[3] - box[1]) < 0.5 and y0 == pytest.approx(
        box[1], abs=0.05 * float(y1 - y0)
    )


@pytest.mark.parametrize(("labels", "expected"), [(CCP13, True), (CIHP20, True), (PPP7, True), (CELEBAMASK19, True)])
def test_label_sets_that_tell_where_a_face_is(labels, expected):
    assert has_heads(labels) is expected


@pytest.mark.parametrize(("labels", "names"), [(CCP13, CCP_NAMES), (CIHP20, CIHP_NAMES)])
def test_the_head_is_where_hair_and_face_are_and_arms_are_no_face(labels, names):
    frame = frame_of_person(parsed(labels, names, roi_at=(100, 50)), labels)
    x0, y0, x1, y1 = frame
    assert (x0 + x1) / 2 == pytest.approx(160, abs=2)  # the face's middle, not pulled aside by the arm
    assert 45 <= y0 <= 65 and 120 <= y1 <= 140 and 66 <= x1 - x0 <= 90


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ({GREEN: "hair", BLUE: "upper-clothes"}, "from behind"),
        ({RED: "skin", BLUE: "upper-clothes"}, "no hair to tell the head's skin from an arm's"),
        ({}, "nothing at all"),
    ],
)
def test_who_shows_no_face_has_no_frame(names, why):
    assert frame_of_person(parsed(CCP13, names), CCP13) is None, why


def test_an_empty_region_and_a_tiny_head_have_no_frame():
    person = parsed(CCP13, CCP_NAMES)
    person.labels = person.labels[:0]
    assert frame_of_person(person, CCP13) is None
    person = parsed(CCP13, CCP_NAMES)
    person.labels, person.box = person.labels[::8, ::8], person.box / 8
    assert frame_of_person(person, CCP13) is None


def test_heads_of_people_in_the_image(bundles):
    detector = HeadDetector(People([(10, 20), (180, 30)]), qanet.load(bundles["people"], device="cpu", threads=1))
    found = detector.detect(draw([(10, 20), (180, 30)]))
    assert detector.name == "heads by people, people by people of the drawing"
    assert found.scores.tolist() == pytest.approx([0.9, 0.8])
    for (x, y), box in zip([(10, 20), (180, 30)], found.boxes):
        assert (box[0] + box[2]) / 2 == pytest.approx(x + 60, abs=12)  # a cell of the network is 16 pixels
        assert box[1] == pytest.approx(y, abs=16) and 50 < box[2] - box[0] < 110
    assert len(HeadDetector(People([]), None).detect(draw([]))) == 0
    assert len(HeadDetector(People([(30, 20)]), None).detect(draw([(30, 20)]))) == 1


def test_two_people_with_one_face_give_it_once(bundles):
    detector = HeadDetector(People([(30, 20), (31, 20)]), qanet.load(bundles["people"], device="cpu", threads=1))
    assert len(detector.detect(draw([(30, 20)]))) == 1


def test_boxes_of_a_face_detector_are_framed_and_those_outside_left_out():
    class Faces:
        name = "faces.onnx"

        def detect(self, image, frame=0):
            if frame == 1:
                return NOBODY
            return Detections(np.array([[50, 50, 80, 90], [50, 50, 53, 54]], np.float32), np.ones(2, np.float32))

    detector = FaceDetector(Faces())
    found = detector.detect(draw([]))
    assert np.allclose(found.boxes, [frame_of_face([50, 50, 80, 90])]) and detector.name == "faces by faces.onnx"
    assert len(detector.detect(draw([]), 1)) == 0


def test_a_model_without_heads_cannot_find_them(bundles):
    parser = qanet.load(bundles["people"], device="cpu", threads=1)
    parser.bundle.manifest["labels"] = "person1"
    with pytest.raises(QanetError, match="does not tell where a head is .*face, or hair and skin"):
        HeadDetector(People([]), parser)


@pytest.fixture
def clip(tmp_path):
    import cv2

    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 240))
    for index in range(5):
        writer.write(draw([(30 + index, 20)]))
    writer.release()
    return path


def test_faces_are_tracked_and_parsed_in_the_pipeline(bundles, clip):
    people = People([(32, 20)])
    parser = qanet.load(
        bundles["faces"],
        device="cpu",
        threads=1,
        detector=HeadDetector(people, qanet.load(bundles["people"], device="cpu", threads=1)),
    )
    seen = []
    pipeline.run(open_source(str(clip)), parser, [], on_frame=lambda frame, result: seen.append(result))
    assert [len(result) for result in seen] == [1] * 5
    assert len({result[0].track_id for result in seen}) == 1
    names = {CELEBAMASK19.classes[k] for k in np.unique(seen[2].labels)}
    assert {"background", "hair", "skin", "cloth"} <= names and "neck" not in names  # the trousers are not in the frame


def test_the_command_parses_faces_by_the_labels_of_the_model(bundles, clip, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(options, "open_detector", lambda *_, **__: People([(32, 20)]))
    results = tmp_path / "faces.jsonl"
    arguments = ["parse", str(clip), "--results", str(results), "--threads", "1", "--device", "cpu", "--json"]
    model, heads = str(bundles["faces"]), ["--head-model", str(bundles["people"])]
    assert main([*arguments, "--model", model, "--recipe", "celebamask19-by-hand", *heads]) == 0
    assert json.loads(capsys.readouterr().out)["detector"] == "heads by people, people by people of the drawing"
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["label_set"] for line in lines] == ["celebamask19"] * 5
    assert {part["class"] for part in lines[0]["people"][0]["parts"]} >= {"hair", "skin"}


def test_the_recipe_alone_names_the_model_beside_the_current_folder(bundles, clip, tmp_path, monkeypatch, capsys):
    (tmp_path / "celebamask19-by-hand.qanet").symlink_to(bundles["faces"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "open_detector", lambda *_, **__: People([(32, 20)]))
    run = ["parse", str(clip), "--recipe", "celebamask19-by-hand", "--head-model", GUESS, "--threads", "1", "--json"]
    assert main(run) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["frames"] == 5 and document["detector"].startswith("heads by a guess")


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("people", ["--face-detector", "x.onnx"], "--face-detector is for models of faces .*got people with ccp13"),
        ("people", ["--head-model", "guess"], "--head-model is for models of faces"),
        ("faces", ["--recipe", "celebamask19-lite0"], "another recipe .*celebamask19-lite0, got celebamask19-by-hand"),
        ("faces", ["--face-detector", "x.onnx", "--whole-image"], "--face-detector and --whole-image contradict"),
        ("faces", ["--face-detector", "x.onnx", "--detector", "y.onnx"], "--face-detector and --detector contradict"),
        ("faces", ["--face-detector", "missing.onnx"], "no detector at missing.onnx"),
        ("faces", ["--whole-image", "--head-model", "nowhere"], None),
    ],
)
def test_options_that_do_not_fit(bundles, clip, model, options, message, capsys):
    code = main(["parse", str(clip), "--model", str(bundles[model]), "--threads", "1", "--json", *options])
    if message is None:  # boxes that were given are taken as they are: no heads are looked for
        assert code == 0
        return
    assert code == 2
    assert re.search(message, capsys.readouterr().err)
