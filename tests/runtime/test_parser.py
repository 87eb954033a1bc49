"""Image in, people out, on a network whose answers are known."""

import numpy as np
import pytest

import qanet
from qanet.errors import QanetError
from qanet.images import open_image
from qanet.quality import fuse_quality
from qanet.runtime.detectors.base import Detections, WholeImage
from qanet.runtime.parser import MAX_BATCH
from qanet.runtime.postprocess import paste_labels

BLUE, GREEN, RED = (255, 0, 0), (0, 255, 0), (0, 0, 255)  # classes 1, 2 and 4 of the tiny network


@pytest.fixture(scope="module")
def graph_parser(shared_tiny_bundle):
    return qanet.load(shared_tiny_bundle, device="cpu", tail="graph", threads=1)


def test_the_parts_are_where_they_were_drawn(tiny_parser, people):
    result = tiny_parser(people(0), boxes=people.boxes(0))
    assert len(result) == 2
    expected = (people(0) > 0) @ np.array([1, 2, 4])
    inner = np.zeros(expected.shape, bool)
    for x0, y0, x1, y1 in people.boxes(0):
        inner[int(y0) + 3 : int(y1) - 3, int(x0) + 3 : int(x1) - 3] = True
        inner[int(y0 + y1) // 2 - 3 : int(y0 + y1) // 2 + 3] = False  # where blue turns green
    assert np.array_equal(result.labels[inner], expected[inner])
    for person in result:
        assert person.part_scores[:2].min() > 0.9 and not person.part_scores[2:].any()
        assert 0.9 < person.pixel_score < 1 and person.iou_score == pytest.approx(0.81)
        assert person.quality == pytest.approx(float(fuse_quality(1, 0.81, person.pixel_score)), abs=1e-6)


def test_a_box_score_takes_part_in_the_quality(tiny_parser, people):
    sure, unsure = (tiny_parser(people(0), people.boxes(0)[:1], [score])[0] for score in (1.0, 0.25))
    assert unsure.quality == pytest.approx(sure.quality * 0.25 ** (1 / 4.5), rel=1e-5) and unsure.box_score == 0.25


def test_both_tails_agree_where_a_crop_is_pasted_one_to_one(tiny_parser, graph_parser):
    cells = np.random.default_rng(0).integers(0, 2, (24, 24, 3), dtype=np.uint8) * np.uint8(255)
    image = cells.repeat(8, 0).repeat(8, 1)
    box = [[64.0 + 6.4, 48.0 + 6.4, 128.0 - 6.4, 112.0 - 6.4]]  # grown by 1.25: 64x64 pixels at (64, 48)
    kernel, graph = (parser(image, box, [0.7])[0] for parser in (tiny_parser, graph_parser))
    assert graph.roi == (64, 48, 128, 112)
    x0, y0, x1, y1 = kernel.roi
    inside = kernel.labels[48 - y0 : 112 - y0, 64 - x0 : 128 - x0]
    assert np.mean(inside == graph.labels) > 0.999
    for key in ("iou_score", "pixel_score", "quality", "part_scores", "part_quality"):
        np.testing.assert_allclose(getattr(kernel, key), getattr(graph, key), atol=5e-3)
    assert graph.part_scores.max() > 0.8  # the comparison has something to compare


def test_labels_are_pasted_to_the_nearest_pixel_and_clipped():
    labels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    pasted, roi = paste_labels(labels, np.array([-4, 2, 4, 10], np.float32), (8, 6))
    assert roi == (0, 2, 4, 8)
    assert np.array_equal(pasted, labels.repeat(2, 0).repeat(2, 1)[:6, 4:])
    pasted, roi = paste_labels(labels, np.array([2.25, 2.75, 4.25, 4.75], np.float32), (8, 6))
    assert roi == (2, 3, 4, 5) and pasted.tolist() == [[4, 6], [12, 14]]  # the pixels whose centres lie inside
    pasted, roi = paste_labels(labels, np.array([-9, 2, -1, 10], np.float32), (8, 6))
    assert pasted.size == 0 and roi[0] == roi[2] == 0


@pytest.mark.parametrize("fixture", ["tiny_parser", "graph_parser"])
@pytest.mark.parametrize("box", [[-40, -30, 30, 60], [150, 100, 400, 300], [-500, -500, 900, 900], [10, 10, 11, 11]])
def test_boxes_partly_outside_and_tiny_boxes_simply_work(request, people, fixture, box):
    result = request.getfixturevalue(fixture)(people(0), [box])
    for person in result:
        x0, y0, x1, y1 = person.roi
        assert 0 <= x0 <= x1 <= 160 and 0 <= y0 <= y1 <= 120 and person.labels.shape == (y1 - y0, x1 - x0)
    assert result.draw().shape == (120, 160, 3) and result.to_json()["image_size"] == [120, 160]


@pytest.mark.parametrize(
    "image",
    [
        np.full((90, 70), 255, np.uint8),
        np.full((90, 70, 1), 255, np.uint8),
        np.full((90, 70, 4), 255, np.uint8),
        np.full((90, 70, 3), 0xFFFF, np.uint16),
        np.ones((90, 70, 3), np.float32),
        np.ones((90, 70), bool),
        np.full((90, 140, 3), 255, np.uint8)[:, ::2],
        np.full((70, 90, 3), 255, np.uint8).transpose(1, 0, 2),
        np.full((90, 70, 3), 255, np.uint8).tolist(),
    ],
    ids=["grey", "grey1", "bgra", "16bit", "float", "bool", "strided", "transposed", "nested lists"],
)
def test_every_kind_of_white_image_shows_class_seven(tiny_parser, image):
    image = np.asarray(image, np.uint8) if isinstance(image, list) else image
    result = tiny_parser(image, [[10, 10, 60, 80]])
    assert result.labels[45, 35] == 7 and result[0].part_scores[6] > 0.9


def test_an_image_of_one_pixel_works(tiny_parser):
    result = tiny_parser(np.full((1, 1, 3), 255, np.uint8), [[0, 0, 1, 1]])
    assert result.labels.tolist() == [[7]] and result.draw().shape == (1, 1, 3)
    assert len(tiny_parser(np.zeros((1, 1, 3), np.uint8))) == 0  # by the detector: nobody is that small


def test_no_boxes_mean_nobody(tiny_parser, people):
    assert len(tiny_parser(people(0), [])) == 0


def test_more_people_than_a_batch_keep_their_order(tiny_parser):
    image = np.zeros((200, 2800, 3), np.uint8)  # apart: the tiny network knows no neighbours
    boxes = []
    for index in range(MAX_BATCH + 5):
        x = 130 * index
        image[60:140, x + 40 : x + 60] = (BLUE, GREEN, RED)[index % 3]
        boxes.append([x + 40, 60, x + 60, 140])
    scores = np.linspace(1, 0.5, len(boxes))
    result = tiny_parser(image, boxes, scores)
    assert [round(p.box[0]) for p in result] == [round(b[0]) for b in boxes]  # the surer box is the better person
    assert [result.labels[100, int(b[0]) + 10] for b in boxes] == [(1, 2, 4)[i % 3] for i in range(len(boxes))]


def test_a_person_found_twice_is_kept_once(tiny_parser, people):
    box = people.boxes(0)[1]
    twice = [box, [v + 1 for v in box]]
    result = tiny_parser(people(0), twice, [0.6, 0.9])
    assert [p.box_score for p in result] == [pytest.approx(0.9)]


def test_tracks_survive_parsing(tiny_parser, people):
    found = Detections(np.array(people.boxes(0), np.float32), np.array([0.5, 0.9], np.float32), np.array([3, 8]))
    assert [(p.track_id, round(p.box_score, 3)) for p in tiny_parser.parse(people(0), found)] == [(8, 0.9), (3, 0.5)]


def test_the_parser_asks_its_detector(shared_tiny_bundle, people):
    parser = qanet.load(shared_tiny_bundle, device="onnxruntime", detector=WholeImage(), threads=1)
    assert parser(people(0))[0].box.tolist() == [0, 0, 160, 120]
    assert {"detect", "crop", "engine", "tail", "suppress"} <= parser.times.samples_ms.keys()


def test_engines_of_two_runtimes_agree(tiny_parser, shared_tiny_bundle, people):
    other = qanet.load(shared_tiny_bundle, device="onnxruntime", threads=1)
    for ours, theirs in zip(tiny_parser(people(0), people.boxes(0)), other(people(0), people.boxes(0))):
        assert np.array_equal(ours.labels, theirs.labels) and ours.quality == pytest.approx(theirs.quality, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"boxes": [[200, 0, 300, 50]]}, "box 0 lies wholly outside the image .expected a box touching 160x120"),
        ({"boxes": [[0, 0, 9, 9], [9, 0, 0, 9]]}, "box 1 is empty"),
        ({"boxes": [[0, 0, 9, float("nan")]]}, "box 0 is not finite"),
        ({"boxes": [0, 0, 9, 9]}, "wrong shape"),
        ({"boxes": [[0, 0, 9, 9]], "box_scores": [1, 1]}, r"expected \(1,\), got \(2,\)"),
        ({"boxes": [[0, 0, 9, 9]], "box_scores": 0.5}, r"box_scores do not fit"),
        ({"boxes": [[0, 0, 9, 9]], "box_scores": [float("nan")]}, "box score is not finite"),
        ({"boxes": [[0, 0, 9, 9]], "box_scores": ["high"]}, "box_scores are not numbers"),
        ({"box_scores": [1]}, "box_scores came without boxes"),
        ({"image": None}, "not an image"),
    ],
)
def test_arguments_that_do_not_fit_are_named(tiny_parser, people, arguments, message):
    with pytest.raises(QanetError, match=message):
        tiny_parser(**{"image": people(0)} | arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "unknown device .expected one of auto, cpu, cuda, onnxruntime, got tpu"),
        ({"precision": "int4"}, "unknown precision .*got int4"),
        ({"precision": "int8"}, "has no int8 graph"),
        ({"tail": "long"}, "unknown tail .expected one of kernel, graph, got long"),
    ],
)
def test_options_that_cannot_be_had_are_named(shared_tiny_bundle, options, message):
    with pytest.raises(QanetError, match=message):
        qanet.load(shared_tiny_bundle, **{"device": "cpu"} | options)


def test_a_gpu_that_is_not_there_is_told(shared_tiny_bundle, monkeypatch):
    monkeypatch.setattr("qanet.runtime.backends.select.has_cuda", lambda: False)
    with pytest.raises(QanetError, match="no GPU to run on .*; next: qanet doctor"):
        qanet.load(shared_tiny_bundle, device="cuda")
    assert qanet.load(shared_tiny_bundle, device="auto", threads=1).engine.runtime == "openvino"


@pytest.mark.parametrize(("side", "fits"), [(20, True), (1500, False)])
def test_ten_thousand_boxes_are_bounded_in_memory(tiny_parser, monkeypatch, side, fits):
    image, engine = np.zeros((2000, 2000, 3), np.uint8), tiny_parser.engine
    boxes = np.tile(np.array([[100, 100, 100 + side, 100 + side]], np.float32), (10_000, 1))
    calls = []

    class Counted:
        def __getattr__(self, name):
            return getattr(engine, name)

        def run(self, batch, box_scores):
            calls.append(len(batch))
            raise MemoryError  # the first batch is enough

    monkeypatch.setattr(tiny_parser, "engine", Counted())
    with pytest.raises(MemoryError if fits else QanetError, match="" if fits else "10000 boxes are too large"):
        tiny_parser(image, boxes=boxes)
    assert bool(calls) == fits


@pytest.mark.parametrize("kind", ["requires_grad", "bfloat16", "half", "sparse"])
def test_tensors_of_every_kind_are_read_or_refused_in_a_line(kind):
    torch = pytest.importorskip("torch")
    tensor = torch.full((3, 6, 8), 0.5, dtype={"bfloat16": torch.bfloat16, "half": torch.half}.get(kind))
    if kind == "sparse":
        with pytest.raises(QanetError, match="this cannot be read as an image"):
            open_image(tensor.to_sparse())
        return
    assert (open_image(tensor.requires_grad_(kind == "requires_grad")) == 128).all()
