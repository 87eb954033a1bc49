"""Flip and box scales at test time: what the parser averages, and that it is what the reference averages."""

import numpy as np
import pytest
from flip_network import CROP_HW, FlipEngine, scene

import qanet
from qanet.bundle import create
from qanet.errors import QanetError
from qanet.geometry import crop_boxes
from qanet.quality import Look, average_looks, fuse_quality, pixel_score
from qanet.runtime.kernels import choose_kernels
from qanet.runtime.parser import MAX_BATCH, Parser
from qanet.runtime.postprocess import MIN_QUALITY
from qanet.runtime.tta import MULTI_SCALE, Augmentation, check_augmentation


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("flip") / "flip.qanet"
    return create(path, labels="cihp20", input_hw=list(CROP_HW), qam_weights=[1, 0.5, 3], pixel_score_threshold=0.2)


@pytest.fixture(autouse=True)
def keep_everybody(monkeypatch):
    """The drawn people mean nothing, so that suppression would pick among them at random."""
    monkeypatch.setattr("qanet.runtime.parser.parsing_nms", lambda people, *_, **__: people)


def by_box(result):
    """The people in the order of their boxes."""
    return sorted(result, key=lambda person: person.box[0])


def views_by_hand(image, boxes, scales, flip):
    """The views and the mean IoU score, each crop run through the network alone."""
    views, iou = [], []
    for scale in scales:
        where = crop_boxes(boxes, CROP_HW, 1.25 * scale)
        for mirrored in (False, True)[: 1 + flip]:
            crops = choose_kernels().crop_people(image, where, CROP_HW)[:, :, :: -1 if mirrored else 1]
            runs = [FlipEngine().run(np.ascontiguousarray(crop[None]), [1.0]) for crop in crops]
            views.append(Look(np.concatenate([run["logits"] for run in runs]), where, mirrored))
            iou.append(np.concatenate([run["iou_scores"] for run in runs]))
    return views, np.mean(iou, 0)


def assert_people(people, scored, iou):
    for index, person in enumerate(people):
        assert np.array_equal(person.roi, scored.rois[index])
        assert np.mean(person.labels == scored.labels[index]) > 0.9999
        np.testing.assert_allclose(person.part_scores, scored.part_scores[index], atol=1e-5)
        assert person.pixel_score == pytest.approx(float(scored.pixel_scores[index]), abs=1e-5)
        assert person.iou_score == pytest.approx(float(iou[index]), abs=1e-6)
        quality = fuse_quality(1, iou[index], scored.pixel_scores[index])
        assert person.quality == pytest.approx(float(quality), abs=1e-5) and person.quality > MIN_QUALITY


def test_flip_is_the_mean_with_the_mirrored_crop(bundle):
    image, boxes = scene()
    engine = FlipEngine()
    people = by_box(Parser(bundle, engine, augmentation=Augmentation(flip=True))(image, boxes))
    assert engine.batches == [6]  # three crops and their mirror images in one batch
    (plain, mirrored), iou = views_by_hand(image, boxes, (1.0,), flip=True)
    pairs = bundle.labels.flip_pairs
    expected = pixel_score(plain.logits, plain.boxes, image.shape[:2], 0.2, mirrored.logits, pairs)
    assert_people(people, expected, iou)
    unflipped = pixel_score(plain.logits, plain.boxes, image.shape[:2], 0.2)
    assert abs(unflipped.part_scores - expected.part_scores).max() > 0.05  # the mirror image says something else


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [MULTI_SCALE, (1.2,), (0.9, 1.3)], ids=str)
def test_scales_grow_the_box_and_are_averaged_on_the_image(bundle, scales, flip):
    image, boxes = scene(1)
    engine = FlipEngine()
    parser = Parser(bundle, engine, augmentation=Augmentation(flip, scales))
    people = by_box(parser(image, boxes))
    assert engine.batches == [3 * (1 + flip)] * len(scales)
    assert parser.augmentation.views == len(scales) * (1 + flip)
    views, iou = views_by_hand(image, boxes, scales, flip)
    assert_people(people, average_looks(views, image.shape[:2], 0.2, bundle.labels.flip_pairs), iou)
    assert {name: len(ms) for name, ms in parser.times.samples_ms.items()} == {
        "crop": 1,
        "engine": 1,
        "tail": 1,
        "suppress": 1,
    }


@pytest.mark.parametrize("scales", [(1.0,), MULTI_SCALE], ids=["one", "many"])
def test_a_mirrored_image_gives_the_mirrored_people(bundle, scales):
    image, boxes = scene(2)
    parser = Parser(bundle, FlipEngine(), augmentation=Augmentation(True, scales))
    mirrored = boxes.copy()
    mirrored[:, [0, 2]] = image.shape[1] - boxes[:, [2, 0]]
    swap = bundle.labels.flip_map
    order = [swap[c] - 1 for c in range(1, 20)]
    there = by_box(parser(image, boxes))
    back = by_box(parser(np.ascontiguousarray(image[:, ::-1]), mirrored))[::-1]
    for one, two in zip(there, back):
        assert np.mean(swap[two.labels[:, ::-1]] == one.labels) > 0.98  # the warp rounds, differently when mirrored
        np.testing.assert_allclose(two.part_scores[order], one.part_scores, atol=0.01)
        assert two.iou_score == pytest.approx(one.iou_score, abs=1e-3)
    assert len(there) == 3 and any(person.labels.max() >= 14 for person in there)  # some have a left and a right


def test_without_augmentation_nothing_changes(bundle):
    image, boxes = scene(3)
    engine = FlipEngine()
    plain = by_box(Parser(bundle, engine)(image, boxes))
    assert engine.batches == [3] and Augmentation().is_plain
    views, iou = views_by_hand(image, boxes, (1.0,), flip=False)
    assert_people(plain, average_looks(views, image.shape[:2], 0.2), iou)


def test_a_batch_holds_the_mirror_images_too(bundle):
    image = np.full((100, 900, 3), 90, np.uint8)
    boxes = [[40 * i, 10, 40 * i + 30, 90] for i in range(MAX_BATCH + 3)]
    engine = FlipEngine()
    result = Parser(bundle, engine, augmentation=Augmentation(True))(image, boxes)
    assert engine.batches == [MAX_BATCH, MAX_BATCH, 6] and len(result) == MAX_BATCH + 3
    assert len(Parser(bundle, engine, augmentation=Augmentation(True))(image, [])) == 0


def test_load_takes_flip_and_scales(shared_tiny_bundle, people):
    parser = qanet.load(shared_tiny_bundle, device="cpu", threads=1, flip=True, scales=[1, 1.1])
    assert parser.augmentation == Augmentation(True, (1.0, 1.1))
    for person in parser(people(0), people.boxes(0)):
        assert person.part_scores[:2].min() > 0.9 and not person.part_scores[2:].any()
        assert person.iou_score == pytest.approx(0.81)
    assert qanet.load(shared_tiny_bundle, device="cpu", threads=1, tail="graph").augmentation.is_plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((True, (1.0,), "graph"), 'the graph tail cannot average views .*flip=True.*next: load.*tail="kernel"'),
        ((False, (1.0, 1.2), "graph"), "the graph tail cannot average views"),
        ((False, ()), "scales do not fit .expected one or more different factors"),
        ((False, (1.0, 1)), "scales do not fit"),
        ((False, (0.0,)), r"each 0.25..4, got 0.0"),
        ((False, (float("nan"),)), "got nan"),
        ((False, (-1.0,)), "got -1.0"),
        ((False, ("big",)), "scales are not numbers"),
        ((False, 1.2), "scales are not numbers"),
    ],
)
def test_what_cannot_be_averaged_is_told(arguments, message):
    with pytest.raises(QanetError, match=message):
        check_augmentation(*arguments)


def test_a_wrong_scale_is_told_before_anything_is_loaded(tmp_path):
    with pytest.raises(QanetError, match="scales do not fit"):
        qanet.load(tmp_path / "nothing.qanet", scales=(9.0,))
