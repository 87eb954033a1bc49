"""Folders of people and their mixture with an annotated set."""

import cv2
import numpy as np
import pytest

from qanet.datasets import PhotoFolder
from qanet.errors import QanetError
from qanet.labels import CCP13, IGNORE
from qanet.train.data.loader import Loader, epoch_order, sampling_weights
from qanet.train.data.people import ANY_CLASS, SUIT, Mixture, PeopleFolder
from qanet.train.data.scenery import Scenery
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


def test_a_folder_without_an_index_names_the_command(tmp_path):
    with pytest.raises(QanetError, match="silhouettes --help"):
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
