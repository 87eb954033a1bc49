"""The data set folder, augmentation and sampling on a small data set made here."""

import cv2
import numpy as np
import pytest
import torch

from qanet.datasets import PhotoFolder, person_box
from qanet.errors import QanetError
from qanet.labels import CCP13, CELEBAMASK19
from qanet.train.data.augment import Surroundings, random_affine, training_crop
from qanet.train.data.loader import Loader, class_presence, epoch_order, repeat_factors
from qanet.train.distributed import World
from qanet.train.recipes import recipe


def test_a_folder_without_split_files_is_taken_whole(small_ccp):
    for file in small_ccp.glob("*.txt"):
        file.unlink()
    assert len(PhotoFolder(small_ccp, CCP13, None)) == 6
    assert len(PhotoFolder(small_ccp, CCP13, "val")) == 6


def test_samples_are_grouped_and_boxed(small_ccp):
    sample = PhotoFolder(small_ccp, CCP13, "train")[0]
    raw = cv2.imread(str(small_ccp / "labels" / "p0.png"), cv2.IMREAD_UNCHANGED)
    assert set(np.unique(sample.labels)) == {0, CCP13.classes.index("hair"), CCP13.classes.index("pants"), 255}
    assert sample.labels[raw == 46].tolist() == [255] * int((raw == 46).sum())  # a suit is ambiguous
    assert sample.box.tolist() == person_box(raw).tolist() == [20.0, 10.0, 60.0, 90.0]


def test_augmentation_keeps_image_and_labels_together(small_ccp):
    settings = recipe("ccp13-lite0", {"input_hw": "96x64", "colour_jitter": "0"})
    sample = PhotoFolder(small_ccp, CCP13, "train")[0]
    for seed in range(8):
        crop, labels = training_crop(sample, settings, CCP13, np.random.default_rng(seed))
        assert crop.shape == (96, 64, 3) and labels.shape == (96, 64)
        hair = labels == CCP13.classes.index("hair")
        inner = cv2.erode(hair.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        if inner.any():  # hair is pure red in the pictures of this data set
            assert np.abs(crop[inner].astype(int) - (0, 0, 255)).max() <= 2


def test_a_flip_swaps_left_and_right(small_ccp):
    settings = recipe("celebamask19-lite0", {"flip_probability": "1", "input_hw": "64x64", "rotation_probability": "0"})
    sample = PhotoFolder(small_ccp, CCP13, "train")[0]
    left_eye = CELEBAMASK19.classes.index("left-eye")
    sample.labels[:] = left_eye
    _, labels = training_crop(sample, settings, CELEBAMASK19, np.random.default_rng(0))
    assert left_eye not in labels and CELEBAMASK19.classes.index("right-eye") in labels


def test_the_affine_is_the_plain_crop_when_nothing_is_random():
    from qanet.geometry import box_to_image, crop_boxes

    box = np.array([20, 10, 60, 90], np.float32)
    still = {"scale_std": "0", "rotation_probability": "0", "shift_std": "0", "flip_probability": "0"}
    settings = recipe("ccp13-lite0", still)
    affine, flip = random_affine(box, settings, np.random.default_rng(0))
    np.testing.assert_allclose(
        affine, box_to_image(crop_boxes(box, settings.input_hw)[0], settings.input_hw), atol=1e-4
    )
    assert not flip


def test_rare_classes_come_oftener():
    presence = np.zeros((100, 2), bool)
    presence[:, 0] = True
    presence[:4, 1] = True
    weights = repeat_factors(presence, 0.16)
    assert weights[50] == 1 and weights[0] == pytest.approx(2)
    order = epoch_order(weights, seed=0, epoch=0)
    assert len(order) == 100 and (order < 4).sum() in (7, 8)
    assert not np.array_equal(order, epoch_order(weights, seed=0, epoch=1))


def test_batches_do_not_depend_on_the_number_of_workers(small_ccp):
    settings = recipe("ccp13-lite0", {"input_hw": "64x64", "batch_size": "3"})
    data = PhotoFolder(small_ccp, CCP13, "train")
    one, four = (list(Loader(data, settings, workers).epoch(2)) for workers in (1, 4))
    assert len(one) == 2 and all(len(batch.crops) == 3 for batch in one)
    for a, b in zip(one, four):
        assert a.crops.equal(b.crops) and a.labels.equal(b.labels) and a.names == b.names


def test_processes_share_the_batch_that_one_process_would_load(small_ccp):
    settings = recipe("ccp13-lite0", {"input_hw": "64x64", "batch_size": "4", "bystander_probability": "1"})
    data = PhotoFolder(small_ccp, CCP13, "train")
    whole = list(Loader(data, settings, 1).epoch(0))
    halves = [list(Loader(data, settings, 1, World(rank, 2)).epoch(0)) for rank in (0, 1)]
    assert torch.cat([halves[0][0].crops, halves[1][0].crops]).equal(whole[0].crops)
    assert halves[0][0].names + halves[1][0].names == whole[0].names
    with pytest.raises(QanetError, match="no multiple of the number of processes .expected a multiple of 3, got 4"):
        Loader(data, settings, 1, World(0, 3))


def test_the_classes_of_a_set_are_looked_for_once(small_ccp, tmp_path):
    data = PhotoFolder(small_ccp, CCP13, "train")
    cache = tmp_path / "presence.npz"
    first = class_presence(data, cache)
    assert first.shape == (4, 13) and first[:, CCP13.classes.index("hair")].all()
    data.class_presence = None  # from here on only the file can tell
    np.testing.assert_array_equal(class_presence(data, cache), first)
    cache.write_bytes(b"broken")
    with pytest.raises(TypeError):  # a broken cache is not believed: the labels are looked at again
        class_presence(data, cache)


def test_a_bystander_is_background_in_front_or_behind(small_ccp):
    settings = recipe("ccp13-lite0", {"input_hw": "96x64", "bystander_probability": "1", "colour_jitter": "0"})
    data = PhotoFolder(small_ccp, CCP13, "train")
    hidden, behind = 0, 0
    for seed in range(12):
        alone, labels = training_crop(data[0], settings, CCP13, np.random.default_rng(seed))
        crop, with_other = training_crop(
            data[0], settings, CCP13, np.random.default_rng(seed), Surroundings(lambda _: data[1])
        )
        changed = (crop != alone).any(2)
        assert changed.any()
        assert (with_other[labels == 0] == 0).all()  # nobody new is labelled
        hidden += ((labels != 0) & (with_other == 0)).any()
        behind += np.array_equal(labels, with_other)
    assert hidden and behind


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda d: (d / "labels" / "p1.png").unlink(), "no photograph or no label, the first is p1"),
        (lambda d: (d / "train.txt").write_text(""), "empty"),
        (lambda d: (d / "train.txt").unlink(), None),
    ],
)
def test_broken_folders_are_named(small_ccp, break_it, message):
    break_it(small_ccp)
    if message is None:
        assert len(PhotoFolder(small_ccp, CCP13, "train")) == 6
        return
    with pytest.raises(QanetError, match=message):
        PhotoFolder(small_ccp, CCP13, "train")


def test_broken_files_are_named(small_ccp):
    data = PhotoFolder(small_ccp, CCP13, "train")
    (small_ccp / "photos" / "p0.png").write_bytes(b"not a picture")
    with pytest.raises(QanetError, match=r"broken image file .*p0"):
        data[0]
    cv2.imwrite(str(small_ccp / "labels" / "p1.png"), np.zeros((5, 5), np.uint8))
    with pytest.raises(QanetError, match="differ in size"):
        data[1]
    with pytest.raises(QanetError, match="no data set"):
        PhotoFolder(small_ccp / "photos", CCP13, "train")
