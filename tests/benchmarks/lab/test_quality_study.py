"""The quality study, from a data set in an official layout to its page, on a network whose answers are known."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from qanet.benchmarks.lab import quality_study as study
from qanet.benchmarks.lab.metrics_scale import measure
from qanet.benchmarks.lab.quality import main, page, reliability_charts, text, verdict
from qanet.benchmarks.lab.quality_study import parse_images
from qanet.datasets import open_dataset, read_detections
from qanet.errors import QanetError
from qanet.metrics import evaluate_parsing
from qanet.quality import QAM_WEIGHTS

IMAGES = 4


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """CIHP's layout, two people an image, blue (1) above green (2); boxes: true, of the upper half, on nobody."""
    import cv2

    root = tmp_path_factory.mktemp("scenes")
    folder = root / "Validation"
    for name in ("Images", "Category_ids", "Human_ids"):
        (folder / name).mkdir(parents=True)
    images, annotations, boxes = [], [], []
    for image_id in range(1, IMAGES + 1):
        image = np.zeros((120, 200, 3), np.uint8)
        category, human = np.zeros((2, 120, 200), np.uint8)
        images.append({"id": image_id, "file_name": f"i{image_id}.png", "height": 120, "width": 200})
        for person, x in ((1, 20 + 3 * image_id), (2, 110)):
            category[20:60, x : x + 36], category[60:100, x : x + 36] = 1, 2
            human[20:100, x : x + 36] = person
            annotations.append(
                {
                    "image_id": image_id,
                    "bbox": [x, 20, 36, 80],
                    "category_id": 1,
                    "iscrowd": 0,
                    "area": 2880,
                    "parsing_id": person,
                    "id": len(annotations) + 1,
                }
            )
            boxes.append({"image_id": image_id, "category_id": 1, "bbox": [x, 20, 36, 80], "score": 0.4 + 0.1 * person})
            boxes.append({"image_id": image_id, "category_id": 1, "bbox": [x, 20, 36, 36], "score": 0.9})
        boxes.append({"image_id": image_id, "category_id": 1, "bbox": [150, 5, 45, 110], "score": 0.8})
        image[category == 1], image[category == 2] = (255, 0, 0), (0, 255, 0)
        cv2.imwrite(str(folder / "Images" / f"i{image_id}.png"), image)
        cv2.imwrite(str(folder / "Category_ids" / f"i{image_id}.png"), category)
        cv2.imwrite(str(folder / "Human_ids" / f"i{image_id}.png"), human)
    (root / "annotations").mkdir()
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    (root / "annotations" / "CIHP_val.json").write_text(json.dumps(document))
    (root / "boxes.json").write_text(json.dumps([b for b in boxes if b["image_id"] != IMAGES]))  # nobody in the last
    return root


@pytest.fixture(scope="module")
def parsed(scenes, tiny_parser):
    """The images of the scenes, parsed at every threshold."""
    data = open_dataset(scenes, "cihp", labels="ccp13", split="val")
    chosen = study.plan(tiny_parser.bundle.threshold)
    images = data.images(read_detections(scenes / "boxes.json", data.image_ids))
    return list(parse_images(tiny_parser, images, chosen.thresholds, chosen.base)), chosen


@pytest.fixture(scope="module")
def document(parsed):
    facts = {
        "bundle": "tiny",
        "precision": "fp32",
        "runtime": "openvino",
        "views": 1,
        "data": "scenes",
        "boxes": "boxes.json",
        "protocol": "official",
        "synthetic": True,
        "qanet_edge": "0",
    }
    return facts | study.evaluate(parsed[0], 13, parsed[1])


def test_every_box_is_parsed_once_and_nobody_is_suppressed(parsed, scenes, tiny_parser):
    images, chosen = parsed
    assert [len(image.predictions) for image in images] == [5, 5, 5, 0]
    assert images[0].pixel_scores.shape == (5, 9) and images[0].part_scores.shape == (5, 9, 12)
    assert images[3].part_scores.shape == (0, 9, 12) and chosen.thresholds[chosen.base] == 0.2
    data = open_dataset(scenes, "cihp", labels="ccp13", split="val")
    scene = next(data.images(read_detections(scenes / "boxes.json", data.image_ids)))
    for index, (box, score) in enumerate(zip(scene.boxes, scene.box_scores)):
        (person,) = tiny_parser(scene.image, box[None], score[None])  # alone, through the parser that users run
        ours = images[0].predictions[index]
        assert (ours.box_score, tuple(ours.roi)) == (pytest.approx(person.box_score), person.roi)
        assert ours.pixel_score == pytest.approx(person.pixel_score, abs=1e-5)
        assert np.mean(ours.labels == person.labels) > 0.999
        np.testing.assert_allclose(ours.part_pixel_scores, person.part_scores, atol=1e-5)


def test_rows_are_what_the_metrics_say_of_their_setting(document, parsed):
    truths = [image.truth for image in parsed[0]]
    predictions = [image.predictions for image in parsed[0]]
    rows = [*document["main"], *document["grid"][::5], *[r for r in document["thresholds"] if r["threshold"] == 0.2]]
    for row in rows:
        alone = evaluate_parsing(truths, predictions, 13, row["protocol"], tuple(row["weights"]))
        for key in study.FIGURES:
            assert row[key] == pytest.approx(alone[key], nan_ok=True), (row["weights"], key)
    assert {tuple(row["weights"]) for row in document["main"]} == set(study.MAIN.values())
    assert len(document["main"]) == 8 and len(document["grid"]) == 27 and len(document["thresholds"]) == 9
    assert len({row["ap_p"] for row in document["grid"]}) > 1  # the exponents matter


def test_gains_and_the_verdict_follow_from_the_table(document):
    by_name = {row["scores"]: row for row in document["main"] if row["protocol"] == "strict"}
    gain = next(g for g in document["gains"] if g["protocol"] == "strict")
    assert gain["ap_r"] == by_name[study.QAM]["ap_r"] - by_name[study.BOX]["ap_r"]
    assert gain["reproduced"] == (gain["ap_r"] > 0.1) and gain["ap_r_interval"][0] <= gain["ap_r_interval"][1]
    rows = [
        {"protocol": protocol, "scores": name, "ap_p": 0.3, "ap_p_50": 0.3, "pcp_50": 0.3, "ap_r": ap, "ap_r_50": ap}
        for protocol, aps in (("official", (0.2, 0.35)), ("strict", (0.2, 0.25)))
        for name, ap in zip((study.BOX, study.QAM), aps)
    ]
    gains = [gain | {"ap_r_interval": (0.011, 0.2)} for gain in study.gains(rows)]
    assert [g["reproduced"] for g in gains] == [True, False]
    yes, no = verdict({"gains": gains})
    assert "+15.00 AP^r (95 % of resampled images +1.10 to +20.00" in yes and "is reproduced here" in yes
    assert "+5.00 AP^r" in no and "is not reproduced here" in no


def test_scores_are_told_with_their_diagrams(document):
    assert [(s["of"], s["score"]) for s in document["scores"]] == [
        (of, score) for of in ("people", "parts") for score in study.SCORES
    ]
    box = next(s for s in document["scores"] if (s["of"], s["score"]) == ("people", "box"))
    assert box["reliability"][:, 0].sum() == 15  # nobody was predicted where people are in the last image
    drawn = reliability_charts(document)
    assert len(drawn) == 8
    for name, svg in drawn.items():
        root = ElementTree.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg", name
        bins = next(s for s in document["scores"] if f"reliability_{s['of']}_{s['score']}" == name)["reliability"]
        discs = [e for e in root.iter() if e.tag.endswith("circle")]
        assert len(discs) == (bins[:, 0] > 0).sum() > 0
        count, score, truth = bins[bins[:, 0] > 0][0]
        assert float(discs[0].get("cx")) == pytest.approx(40 + 200 * score, abs=0.01)
        assert float(discs[0].get("cy")) == pytest.approx(226 - 200 * min(truth, 1), abs=0.01)


def test_page_and_table_tell_the_same_numbers(document):
    html, words = page(document), text(document)
    for row in document["main"]:
        for key in ("ap_p", "ap_r"):
            assert f">{100 * row[key]:.2f}<" in html and f"{100 * row[key]:.2f}" in words
    assert f"{IMAGES} synthetic scenes of scenes" in html and "synthetic scenes" in words
    assert html.count("<svg") == 10 and "<script" not in html
    assert {word for word in html.split('"') if word.startswith("http")} == {"http://www.w3.org/2000/svg"}


def test_names_are_escaped(document):
    html = page(document | {"data": "<img src=x onerror=alert(1)>"})
    assert "<img" not in html and "&lt;img" in html


def test_the_command_writes_everything(scenes, shared_tiny_bundle, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [
        str(shared_tiny_bundle),
        "--data",
        str(scenes),
        "--boxes",
        str(scenes / "boxes.json"),
        "--output",
        str(out),
        "--device",
        "cpu",
        "--threads",
        "1",
        "--json",
    ]
    assert main([*arguments, "--format", "cihp", "--flip", "--scales", "1,1.1", "--protocol", "strict"]) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((out / "results.json").read_text())
    assert printed == written and written["views"] == 4 and written["scales"] == [1, 1.1]
    assert (written["images"], written["persons"], written["predictions"]) == (IMAGES, 2 * IMAGES, 15)
    assert not written["synthetic"] and {row["protocol"] for row in written["grid"]} == {"strict"}
    names = {path.name for path in out.iterdir()}
    assert {"report.html", "results.txt", "reliability_people_quality.svg", "reliability_parts_pixel.svg"} <= names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--boxes", "none.json"], "no file none.json"),
        (["--scales", "1,x"], "bad --scales .*got x"),
        (["--split", "train"], "train"),
        (["--data", "nowhere"], "no data set at nowhere"),
        (["--format", "coco17"], "invalid choice"),
    ],
)
def test_mistakes_are_told_in_one_line(scenes, shared_tiny_bundle, tmp_path, change, message):
    arguments = [
        str(shared_tiny_bundle),
        "--data",
        str(scenes),
        "--format",
        "cihp",
        "--boxes",
        str(scenes / "boxes.json"),
        "--output",
        str(tmp_path / "out"),
        "--device",
        "cpu",
    ]
    with pytest.raises(QanetError, match=message):
        main([*arguments, *change])
    assert not (tmp_path / "out").exists()


def test_a_mistake_ends_with_two_and_no_traceback():
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "qanet.benchmarks.lab.quality",
            "no-such-bundle",
            "--data",
            "x",
            "--boxes",
            "y",
            "--output",
            "z",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr


def test_the_plan_has_the_published_exponents_and_the_bundles_threshold():
    chosen = study.plan(0.35, "strict")
    assert chosen.thresholds == (0.1, 0.2, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9) and chosen.base == 3
    assert study.MAIN[study.QAM] == QAM_WEIGHTS and all(setting.variant <= 9 for setting in chosen.settings)
    assert {row.protocol for table, _, row in chosen.rows if table != "main"} == {"strict"}


def test_the_metrics_are_measured_on_as_many_people_as_were_asked_for():
    measured = measure(12, 5, "strict")
    assert (measured["people"], measured["images"]) == (15, 3)  # whole images
    assert 0.3 < measured["ap_p"] < 1 and measured["add_s"] > 0 and measured["peak_mib"] >= measured["start_mib"] > 10
