"""What is pasted and is nobody: its form, its variety, and that no box asks for it."""

import numpy as np
import pytest
from person_cases import write_backgrounds, write_ccp

from qanet.train.detection import data as training_data
from qanet.train.detection.data import DetectionData
from qanet.train.detection.scenes.compose import compose
from qanet.train.detection.scenes.decoys import SIDE_PX, decoy, plain, ragged, texture

BLUE = np.zeros((200, 300, 3), np.uint8) + np.array([200, 0, 0], np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (200, 300, 3)).astype(np.uint8)


def person():
    cutout = np.full((90, 30, 4), 255, np.uint8)
    cutout[..., :3] = (0, 0, 255)
    cutout[:, :10, 3] = 0
    return cutout


def made(photograph, height_px, count=80):
    return [decoy(photograph, person, height_px, np.random.default_rng(seed)) for seed in range(count)]


def test_decoys_are_cut_outs_of_many_forms():
    decoys = made(NOISE, 100.0)
    for one in decoys:
        assert one.dtype == np.uint8 and one.shape[2] == 4 and (one[..., 3] > 127).any()
    aspects = [one.shape[0] / one.shape[1] for one in decoys]
    assert min(aspects) < 1.5 and max(aspects) > 5
    shares = [(one[..., 3] > 127).mean() for one in decoys]
    assert min(shares) < 0.7 and max(shares) > 0.9


def test_the_outline_of_a_person_never_has_a_persons_pixels_and_is_large_and_textured():
    outlines = [one for one in made(NOISE, 100.0) if one.shape[:2] == (90, 30)]
    assert len(outlines) > 5
    for one in outlines:
        assert (one[..., 3] == person()[..., 3]).all() and (one[..., :3] != (0, 0, 255)).any(2).all()
    assert all(one.shape[0] == SIDE_PX for one in made(NOISE, 30.0))  # small ones may be people
    assert all(one.shape[0] == SIDE_PX for one in made(BLUE, 100.0))  # so may be plain ones, against the light


def test_no_box_asks_for_a_decoy():
    """A scene of decoys alone has no box; with people, every box holds somebody red."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        nobody = np.zeros((40, 20, 4), np.uint8)
        lured = []

        def lure(height_px, rng=rng, lured=lured):
            lured.append(height_px)
            return decoy(BLUE, person, height_px, rng)

        _, boxes = compose(BLUE, (96, 96), lambda cutout=nobody: cutout, rng, lure)
        assert len(boxes) == 0 and len(lured) <= 4
        image, boxes = compose(BLUE, (96, 96), person, rng, lure)
        for x0, y0, x1, y1, score in boxes.astype(int).tolist():
            if score == 1 and min(x1 - x0, y1 - y0) > 12:
                part = image[y0:y1, x0:x1].astype(int)
                assert (part[..., 2] > part[..., 0]).any()


def test_a_decoy_hides_the_people_behind_it():
    """Every other person is covered by a wall; what is boxed is what is left to see."""
    wall = np.full((50, 50, 4), 255, np.uint8)
    wall[..., :3] = (0, 255, 0)
    bare = [len(compose(BLUE, (96, 96), person, np.random.default_rng(seed))[1]) for seed in range(40)]
    walled = [len(compose(BLUE, (96, 96), person, np.random.default_rng(s), lambda _: wall)[1]) for s in range(40)]
    assert sum(walled) < sum(bare)


def test_textures_keep_to_their_photograph_and_fit_any_size():
    for hw in ((160, 40), (90, 30), (500, 20), (7, 400)):
        part = texture(BLUE, hw, np.random.default_rng(1))
        assert part.shape == (*hw, 3) and (part == BLUE[0, 0]).all()


def test_plain_fillings_are_greyish_and_edges_wander_little():
    colours = [plain((40, 30), np.random.default_rng(seed)).mean((0, 1)) for seed in range(40)]
    assert np.ptp(colours, axis=1).mean() < 60 and np.ptp(colours, axis=0).min() > 120
    mask = np.zeros((80, 60), np.uint8)
    mask[20:60, 20:40] = 255
    wandered = ragged(mask, np.random.default_rng(2))
    assert (wandered[27:53, 27:33] == 255).all() and (wandered[:13] == 0).all() and (wandered != mask).any()


@pytest.mark.parametrize(("share", "expected"), [(0.0, False), (1.0, True)])
def test_scenes_of_the_training_data_have_decoys(share, expected, tmp_path, monkeypatch):
    made_of = []
    monkeypatch.setattr(training_data, "_WITH_DECOYS", share)
    monkeypatch.setattr(training_data, "decoy", lambda *given: made_of.append(given) or person())
    data = DetectionData(write_ccp(tmp_path / "ccp"), write_backgrounds(tmp_path / "backgrounds"), [], 8, scenes=0.9)
    for seed in range(8):
        data.draw((64, 64), 0.0, np.random.default_rng(seed))
    assert bool(made_of) is expected
