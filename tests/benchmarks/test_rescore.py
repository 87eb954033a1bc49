"""`qanet rescore`: Q by hand, every carrier of probabilities, AP before and after, and mistakes told by their place."""

import json

import numpy as np
import pytest
from coco_cases import annotation

from qanet.__main__ import main
from qanet.coco.rescoring import score_results
from qanet.coco.results import ARRAY, pack_map
from qanet.quality import fuse_quality, probability_score
from qanet.rle import encode

SIDE, GRID = 96, 28
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools")


def person(rng):
    """A mask with a random outline (radius by angle), and the function that gives its probability map over a box."""
    centre, size = rng.uniform(34, 62, 2), rng.uniform(14, 30)
    waves = rng.normal(0, 0.16, (2, 4))

    def inside(x, y, shift, sharpness):
        dx, dy = x - centre[0] - shift[0], y - centre[1] - shift[1]
        angle = np.arctan2(dy, dx)
        radius = size * (1 + sum(a * np.cos(k * angle) + b * np.sin(k * angle) for k, (a, b) in enumerate(waves.T, 1)))
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-(radius - np.hypot(dx, dy)) * sharpness))

    return inside


def case(count=24, seed=0):
    """Annotations, results whose score says nothing of the mask, and maps that are unsure where the mask is wrong."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    images, annotations, results, maps = [], [], [], []
    for number in range(1, count + 1):
        inside = person(rng)
        truth = (inside(x, y, (0, 0), 9) >= 0.5).astype(np.uint8)
        images.append({"id": number, "height": SIDE, "width": SIDE})
        annotations.append(annotation(number, number, truth))
        error = rng.uniform(0, 12)
        shift, sharpness = rng.choice((-1, 1), 2) * error / 2, 2 / (1 + error)
        mask = (inside(x, y, shift, sharpness) >= 0.5).astype(np.uint8)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = np.array([columns[0] - 2, rows[0] - 2, columns[-1] + 3, rows[-1] + 3], float)
        steps = (np.arange(GRID) + 0.5) / GRID
        maps.append(
            inside(
                *np.meshgrid(box[0] + steps * (box[2] - box[0]), box[1] + steps * (box[3] - box[1])), shift, sharpness
            )
        )
        results.append(
            {
                "image_id": number,
                "category_id": 1,
                "score": round(float(rng.uniform(0.3, 1)), 3),
                "mine": number,
                "bbox": [*box[:2], *(box[2:] - box[:2])],
                "segmentation": encode(mask),
            }
        )
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    return document, results, np.array(maps, np.float32)


@pytest.fixture
def files(tmp_path):
    """ann.json, results.json and maps.npz in a folder, and what is in them."""
    document, results, maps = case()
    (tmp_path / "ann.json").write_text(json.dumps(document))
    (tmp_path / "results.json").write_text(json.dumps(results))
    np.savez(tmp_path / "maps.npz", **{ARRAY: maps})
    return tmp_path, results, maps


def rescore(folder, *arguments, name="results.json", output="new.json"):
    """Run the command; what it wrote."""
    assert main(["rescore", str(folder / name), "--output", str(folder / output), *arguments]) == 0
    return json.loads((folder / output).read_text())


def expected_pixel_scores(results, maps):
    boxes = [[x, y, x + w, y + h] for x, y, w, h in (r["bbox"] for r in results)]
    return probability_score(maps, boxes, (SIDE, SIDE)).pixel_scores


def test_a_map_is_pasted_as_detectron2_pastes_it():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    for _ in range(6):
        x0, y0 = rng.uniform(-10, 50, 2)
        box = [x0, y0, x0 + rng.uniform(4, 70), y0 + rng.uniform(4, 70)]
        given = rng.uniform(0, 1, (GRID, GRID)).astype(np.float32)
        columns, rows = (
            torch.from_numpy(((np.arange(SIDE) + 0.5 - low) / (high - low) * 2 - 1).astype(np.float32))
            for low, high in ((box[0], box[2]), (box[1], box[3]))
        )
        grid = torch.stack([columns[None].expand(SIDE, SIDE), rows[:, None].expand(SIDE, SIDE)], -1)[None]
        pasted = torch.nn.functional.grid_sample(torch.from_numpy(given)[None, None], grid, align_corners=False)[0, 0]
        scored = probability_score(given[None], [box], (SIDE, SIDE))
        near = np.abs(pasted.numpy() - 0.5) < 1e-4  # the two round differently
        assert np.array_equal(scored.full(0)[~near], (pasted.numpy() >= 0.5)[~near])
        expected = int((pasted >= 0.75).sum()) / int((pasted >= 0.25).sum())
        assert scored.pixel_scores[0] == pytest.approx(expected, abs=2e-3)


def test_q_by_its_definition_and_every_other_key_is_kept(files):
    folder, results, maps = files
    got = rescore(folder, "--probabilities", str(folder / "maps.npz"), "--weights", "2,1,1")
    pixel = expected_pixel_scores(results, maps)
    box = np.array([r["score"] for r in results], np.float32)
    quality = (box.astype(float) ** 2 * pixel) ** (1 / 3)  # without a predicted IoU its exponent counts as 0
    np.testing.assert_allclose([r["score"] for r in got], quality, atol=1e-6)
    assert np.array_equal(np.array([r["pixel_score"] for r in got], np.float32), pixel)
    added = {"score", "box_score", "pixel_score"}
    for before, after in zip(results, got):
        assert {k: v for k, v in after.items() if k not in added} == {k: v for k, v in before.items() if k != "score"}
        assert after["box_score"] == pytest.approx(before["score"], abs=1e-7)


@pytest.mark.parametrize("key", ["iou_score", "mask_iou"])
def test_a_predicted_iou_is_clamped_and_takes_part(files, key):
    folder, results, maps = files
    ious = np.linspace(-0.2, 1.2, len(results))
    given = [{**r, key: float(iou)} for r, iou in zip(results, ious)]
    (folder / "results.json").write_text(json.dumps(given))
    got = rescore(folder, "--probabilities", str(folder / "maps.npz"))
    box = [r["score"] for r in results]
    expected = fuse_quality(box, np.clip(ious, 0, 1), expected_pixel_scores(results, maps))
    np.testing.assert_allclose([r["score"] for r in got], expected, atol=1e-6)
    assert [r[key] for r in got] == ious.tolist()


@pytest.mark.parametrize("carrier", ["uint8 file", "packed", "lists", "pixel_score"])
def test_every_carrier_gives_the_same_bytes(files, carrier):
    folder, results, maps = files
    grey = np.rint(maps * 255).astype(np.uint8)
    np.savez_compressed(folder / "grey.npz", **{ARRAY: grey})
    reference = rescore(folder, "--probabilities", str(folder / "grey.npz"), output="reference.json")
    packed = [pack_map(m) for m in maps]
    lists = [(m / np.float32(255)).tolist() for m in grey]
    pixel = [r["pixel_score"] for r in reference]
    if carrier == "uint8 file":
        rescore(folder, "--probabilities", str(folder / "grey.npz"))
    else:
        key = "pixel_score" if carrier == "pixel_score" else ARRAY
        values = {"packed": packed, "lists": lists, "pixel_score": pixel}[carrier]
        given = [{**r, key: value} for r, value in zip(results, values)]
        (folder / "given.json").write_text(json.dumps(given))
        rescore(folder, name="given.json")
    got = json.loads((folder / "new.json").read_text())
    assert [sorted(r.items(), key=str) for r in got] == [sorted(r.items(), key=str) for r in reference]


def test_rescoring_again_starts_from_the_same_scores(files):
    folder, _, _ = files
    rescore(folder, "--probabilities", str(folder / "maps.npz"), "--weights", "1,0,1", output="direct.json")
    rescore(folder, "--probabilities", str(folder / "maps.npz"), output="first.json")
    rescore(folder, "--weights", "1,0,1", name="first.json", output="again.json")
    assert (folder / "again.json").read_bytes() == (folder / "direct.json").read_bytes()


def test_ap_and_rank_correlation_rise_where_unsure_masks_are_wrong(files, capsys):
    pytest.importorskip("pycocotools")
    folder, results, _ = files
    arguments = ["--probabilities", str(folder / "maps.npz"), "--annotations", str(folder / "ann.json")]
    rescore(folder, *arguments, "--json")
    report = json.loads(capsys.readouterr().out)
    assert report["protocol"] == "coco" and report["results"] == len(results) and report["weights"] == [1, 0, 3]
    assert report["after"]["ap"] > report["before"]["ap"] + 0.05
    assert report["rank_correlation"]["quality"] > 0.6 > report["rank_correlation"]["box"]
    assert report["rank_correlation"]["pixel"] > 0.9 and report["rank_correlation"].keys() == {
        "box",
        "pixel",
        "quality",
    }
    rescore(folder, *arguments)
    text = capsys.readouterr().out
    assert "AP 50" in text and f"{100 * report['after']['ap']:.2f}" in text
    assert "no predicted IoU in these results" in text and "rank correlation with the true mask IoU" in text


def test_a_size_that_the_result_does_not_tell_comes_from_the_annotations(files):
    folder, results, maps = files
    bare = [{k: v for k, v in r.items() if k != "segmentation"} for r in results]
    scored = score_results(iter(bare), iter(maps), "bare", {r["image_id"]: (SIDE, SIDE) for r in results})
    assert np.array_equal(scored.pixel, expected_pixel_scores(results, maps))
    assert len(scored.results) == len(results) and scored.iou is None


def test_a_box_without_area_scores_nothing(files):
    folder, results, _ = files
    results[3]["bbox"] = [10, 10, 0, 5]
    (folder / "results.json").write_text(json.dumps(results))
    got = rescore(folder, "--probabilities", str(folder / "maps.npz"))
    assert got[3]["pixel_score"] == got[3]["score"] == 0


def test_no_results_are_no_mistake(files, capsys):
    folder, _, _ = files
    (folder / "none.json").write_text("[]")
    assert rescore(folder, "--json", name="none.json") == []
    assert json.loads(capsys.readouterr().out)["mean_pixel_score"] is None


def edited(files, edit):
    folder, results, _ = files
    edit(results)
    (folder / "results.json").write_text(json.dumps(results))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda r: r.pop(), "has fewer results than there are maps (expected one map each, got 23)"),
        (lambda r: r.append(r[0]), "has more results than there are maps (expected 24 results)"),
        (lambda r: r[4].pop("score"), "result 4 has no 'score'"),
        (lambda r: r[4].pop("bbox"), "result 4 has no usable bbox"),
        (lambda r: r[4].update(score=1.2), "result 4: score is out of range"),
        (lambda r: r[4].update(box_score=-1), "result 4: box_score is out of range"),
        (lambda r: r[4].pop("segmentation"), "result 4 does not tell its image's size"),
        (lambda r: r[4].update(iou_score="high"), "result 4: iou_score is not finite"),
        (lambda r: r[4].update(iou_score=0.5), "result 0 has no predicted IoU while others have"),
        (lambda r: r.reverse(), "are not those of these results (expected maps that give the masks"),
    ],
)
def test_results_that_do_not_fit_are_told(files, capsys, edit, message):
    edited(files, edit)
    folder = files[0]
    arguments = ["--output", str(folder / "new.json"), "--probabilities", str(folder / "maps.npz")]
    assert main(["rescore", str(folder / "results.json"), *arguments]) == 2
    assert message in capsys.readouterr().err and not (folder / "new.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "1,2"], "bad --weights (expected three numbers a,b,g like 1,0.5,3, got 1,2)"),
        (["--weights", "0,0,0"], "positive sum"),
        (["--weights", "1,-1,1"], "numbers of 0 or more"),
        (["--weights", "1,nan,1"], "numbers of 0 or more"),
        ([], "result 0 comes without probabilities (expected a key mask_probabilities or pixel_score"),
        (["--probabilities", "none.npz"], "no file none.npz"),
        (["--annotations", "none.json"], "no file none.json"),
    ],
)
def test_arguments_that_do_not_fit_are_told(files, capsys, arguments, message):
    folder = files[0]
    assert main(["rescore", str(folder / "results.json"), "--output", str(folder / "new.json"), *arguments]) == 2
    assert message in capsys.readouterr().err and not (folder / "new.json").exists()


def test_bad_maps_are_told_by_their_place(files, capsys):
    folder, results, maps = files
    maps[7, 3, 3] = np.nan
    np.savez(folder / "maps.npz", **{ARRAY: maps})
    arguments = [str(folder / "results.json"), "--output", str(folder / "new.json")]
    assert main(["rescore", *arguments, "--probabilities", str(folder / "maps.npz")]) == 2
    assert "map 7 holds no probabilities" in capsys.readouterr().err
    (folder / "results.json").write_text(json.dumps([{**results[0], ARRAY: [[2.0]]}]))
    assert main(["rescore", *arguments]) == 2
    assert "result 0: mask_probabilities holds no probabilities" in capsys.readouterr().err
    assert main(["rescore", *arguments, "--threshold", "0.7"]) == 2
