"""Folders of people and their mixture with an annotated set."""

import cv2
import numpy as np
import pytest
import torch

from qanet.datasets import PhotoFolder
from qanet.errors import QanetError
from qanet.labels import CCP13, CCP59, CIHP20, IGNORE
from qanet.train.data.loader import Loader, epoch_order, sampling_weights
from qanet.train.data.people import (
    ANY_CLASS,
    BOTTOM,
    FIRST,
    LEGWEAR,
    SUIT,
    TOP,
    Mixture,
    PeopleFolder,
    fashion_lookup,
    partial_sets,
)
from qanet.train.data.scenery import Scenery
from qanet.train.losses import iou_targets, lovasz_softmax, parsing_losses
from qanet.train.recipes import recipe


def mixture(small_ccp, silhouettes, share=0.25):
    return Mixture(PhotoFolder(small_ccp, CCP13, "train"), [PeopleFolder(silhouettes, CCP13)], [share])


def test_a_folder_gives_whole_photographs_and_boxes(silhouettes):
    people = PeopleFolder(silhouettes, CCP13)
    sample = people[1]
    assert people.names == ["p0", "p1"] and sample.image.shape == (100, 80, 3)
    assert sample.box.tolist() == [20, 10, 60, 90] and set(np.unique(sample.labels)) == {0, ANY_CLASS, IGNORE}
    assert set(np.unique(people.image(1).truth.category)) == {0, IGNORE}
    assert people.class_pixels(0).shape == (1, 13)


def test_a_folder_without_an_index_names_the_next_step(tmp_path):
    with pytest.raises(QanetError, match="no index of people at .*docs/training.md"):
        PeopleFolder(tmp_path, CCP13)


def test_void_garments_are_somebodys_in_a_mixture(small_ccp, silhouettes):
    mixed = mixture(small_ccp, silhouettes)
    assert len(mixed) == 6 and SUIT in mixed[0].labels and IGNORE not in mixed[0].labels
    assert mixed.outlined(3) and not mixed.outlined(4)
    assert ANY_CLASS in mixed[4].labels and mixed.part_of(5) == (1, 1)
    assert mixed.class_presence().shape == (6, 13)


def test_shares_are_kept_whatever_the_sizes(small_ccp, silhouettes):
    mixed = mixture(small_ccp, silhouettes)
    weights = sampling_weights(mixed, mixed.class_presence(), 0.4)
    assert weights[4:].sum() == pytest.approx(0.25) and weights.sum() == pytest.approx(1)
    order = epoch_order(weights, 0, 0, 400)
    assert len(order) == 400 and (order >= 4).sum() == pytest.approx(100, abs=2)


@pytest.mark.parametrize("shares", [[1.0], [0.0], [], [0.2, 0.3]])
def test_shares_that_leave_nothing_are_refused(small_ccp, silhouettes, shares):
    with pytest.raises(QanetError, match="bad shares"):
        Mixture(PhotoFolder(small_ccp, CCP13, "train"), [PeopleFolder(silhouettes, CCP13)], shares)


def test_batches_of_a_mixture_are_the_same_for_any_workers(small_ccp, silhouettes, tmp_path):
    (tmp_path / "scenery").mkdir()
    cv2.imwrite(str(tmp_path / "scenery" / "wall.png"), np.full((50, 60, 3), 30, np.uint8))
    hard = dict.fromkeys(("cut_probability", "scenery_probability", "cover_probability", "spoil_probability"), "0.8")
    settings = recipe("ccp13-lite0", {"input_hw": "96x64", "batch_size": "4", "epoch_people": "10", **hard})
    loaders = [
        Loader(mixture(small_ccp, silhouettes), settings, n, scenery=Scenery([tmp_path / "scenery"])) for n in (1, 3)
    ]
    one, three = (list(loader.epoch(1)) for loader in loaders)
    assert len(one) == 3 == len(loaders[0])
    for a, b in zip(one, three):
        assert a.names == b.names and (a.crops == b.crops).all() and (a.labels == b.labels).all()


SETS = {ANY_CLASS: (1, 2, 3), TOP: (1, 2)}  # of four classes


def test_the_ids_stand_for_classes_by_name():
    sets = partial_sets(CCP13)
    assert sets[ANY_CLASS] == tuple(range(1, 13))
    assert [CCP13.classes[i] for i in sets[BOTTOM]] == ["skirt", "dress"]
    assert all(FIRST <= code < IGNORE for code in sets)
    assert LEGWEAR not in partial_sets(CIHP20)  # which has no class "skin"


@pytest.mark.parametrize(
    "raw, expected", [("suit", SUIT), ("tights", LEGWEAR), ("ring", ANY_CLASS), ("jeans", CCP13.classes.index("pants"))]
)
def test_what_clothing_leaves_void_is_somebodys(raw, expected):
    assert fashion_lookup(CCP13)[CCP59.classes.index(raw)] == expected
    assert fashion_lookup(CCP13)[IGNORE] == IGNORE


def test_cross_entropy_asks_for_the_sum_of_the_classes():
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 4, 4)
    labels = torch.randint(0, 4, (2, 16, 16))
    labels[:, :5], labels[:, 5:9], labels[:, 9:11] = ANY_CLASS, TOP, IGNORE
    full = torch.nn.functional.interpolate(logits, size=(16, 16), mode="bilinear", align_corners=False)
    p = full.softmax(1)
    wanted = torch.where(labels < 4, p.gather(1, labels.clamp(max=3)[:, None])[:, 0], 1.0)
    wanted = torch.where(labels == ANY_CLASS, p[:, 1:].sum(1), wanted)
    wanted = torch.where(labels == TOP, p[:, 1] + p[:, 2], wanted)
    expected = -wanted.log().sum() / (labels != IGNORE).sum()
    losses = parsing_losses(logits, torch.ones(2), labels, partial=SETS)
    assert losses["ce"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_sets_without_such_pixels_change_nothing():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 4, 4), torch.randint(0, 4, (2, 16, 16))
    plain = parsing_losses(logits, torch.ones(2), labels)
    with_sets = parsing_losses(logits, torch.ones(2), labels, partial=SETS)
    assert all(torch.equal(plain[key], with_sets[key]) for key in plain)


def test_lovasz_leaves_a_pixel_out_for_what_it_may_be_and_counts_it_against_the_rest():
    torch.manual_seed(0)
    p = torch.randn(1, 4, 1, 40).softmax(1)
    labels = torch.zeros(1, 1, 40, dtype=torch.long)
    labels[..., 10:20], labels[..., 20:30] = 1, ANY_CLASS
    given = lovasz_softmax(p, labels, SETS)
    others = [*range(20), *range(30, 40)]
    one_less = lovasz_softmax(p[..., others], labels[..., others])
    background_known = torch.where(labels == ANY_CLASS, 3, labels)
    # background sees the pixels as not its own, class 1 does not see them
    sees_all = lovasz_softmax(p, background_known)
    assert given.item() not in (one_less.item(), sees_all.item())
    changed = p.clone()
    changed[:, 1:, :, 20:30] = changed[:, 1:, :, 20:30].flip(1)  # classes among themselves
    assert torch.allclose(lovasz_softmax(changed, labels, SETS), given)
    assert torch.isfinite(lovasz_softmax(p, torch.full_like(labels, ANY_CLASS), SETS))


def test_the_iou_head_has_no_target_where_parts_are_unknown():
    logits = torch.randn(2, 4, 8, 8)
    labels = torch.ones(2, 8, 8, dtype=torch.long)
    labels[0, 0] = ANY_CLASS  # an eighth
    targets = iou_targets(logits, labels)
    assert targets[0] == 0 and targets[1] > 0
    labels[0, 0, 1:] = 0
    assert iou_targets(logits, labels)[0] > 0
    assert np.isfinite(targets.numpy()).all()
