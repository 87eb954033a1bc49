"""Drawn people in COCO's layout -> a trained mask network -> a bundle -> COCO results -> AP by pycocotools."""

import json

import pytest
import torch
from coco_cases import write_people
from exported_networks import exports_kept

from qanet.__main__ import main
from qanet.bundle import open_bundle
from qanet.coco.people import open_coco_people
from qanet.export.command import export_checkpoint
from qanet.rle import decode
from qanet.train.data.loader import Loader
from qanet.train.losses import mask_losses
from qanet.train.networks import build
from qanet.train.recipes import Recipe
from qanet.train.weights import save_weights

RECIPE = Recipe(
    "person-mask-tiny",
    labels="person1",
    data_format="coco",
    input_hw=(64, 64),
    backbone="lite0-slim",
    width=16,
    iou_hidden=16,
    batch_size=4,
    rotation_probability=0.0,
    colour_jitter=0.1,
)
EPOCHS = 5

pytest.importorskip("pycocotools")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The data set's folder, the bundle, and the losses of the first and the last epoch."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("masks")
    write_people(folder / "data", "train", 24, seed=0)
    write_people(folder / "data", "val", 8, seed=1)
    network = build(RECIPE)
    network.backbone.load_pretrained()
    loader = Loader(open_coco_people(folder / "data", "train"), RECIPE, workers=1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * len(loader))
    history = []
    network.train()
    for epoch in range(EPOCHS):
        total = 0.0
        for batch in loader.epoch(epoch):
            logits, iou = network(network.normalise(batch.crops))
            loss = torch.stack(list(mask_losses(logits, iou, batch.labels, lovasz_stride=2).values())).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        history.append(total / len(loader))
    save_weights(folder / "model.safetensors", network.eval(), RECIPE)
    with exports_kept():
        bundle = export_checkpoint(folder / "model.safetensors", folder / "tiny.qanet")
    return folder, bundle.path, history


def masks(trained, tmp_path, capsys, *others):
    """The report and the results of `qanet masks` on the val split."""
    folder, bundle, _ = trained
    data = ["--annotations", str(folder / "data" / "annotations" / "instances_val.json")]
    data += ["--images", str(folder / "data" / "val"), "--output", str(tmp_path / "results.json")]
    assert main(["masks", str(bundle), *data, "--threads", "1", "--json", *others]) == 0
    return json.loads(capsys.readouterr().out), json.loads((tmp_path / "results.json").read_text())


def test_it_learns_to_tell_the_person_of_the_crop(trained, tmp_path, capsys):
    assert trained[2][-1] < 0.6 * trained[2][0]
    report, results = masks(trained, tmp_path, capsys)
    assert report["results"] == 16 and report["ap_50"] > 0.9 and report["ap"] > 0.5
    for result in results:
        assert decode(result["segmentation"]).shape == (96, 96)
        assert result["box_score"] == 1 and 0 <= result["pixel_score"] <= 1 and 0 <= result["iou_score"] <= 1
        fused = (result["iou_score"] ** 0.5 * result["pixel_score"] ** 3) ** (1 / 4.5)
        assert result["score"] == pytest.approx(fused, abs=1e-5)
    assert sum(result["pixel_score"] for result in results) / len(results) > 0.3


def test_detected_boxes_the_mirror_and_another_ranking(trained, tmp_path, capsys):
    annotations = json.loads((trained[0] / "data" / "annotations" / "instances_val.json").read_text())["annotations"]
    found = [{**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.5} for a in annotations]
    (tmp_path / "found.json").write_text(json.dumps(found[1:]))
    report, results = masks(trained, tmp_path, capsys, "--boxes", str(tmp_path / "found.json"), "--flip")
    assert report["boxes"] == "detected" and report["results"] == 15 and report["ap_50"] > 0.8
    assert {result["box_score"] for result in results} == {0.5}
    assert main(["rescore", str(tmp_path / "results.json"), "--output", str(tmp_path / "new.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["predicted_iou"]
    again = json.loads((tmp_path / "new.json").read_text())
    assert [r["score"] for r in again] == pytest.approx([r["score"] for r in results], abs=1e-6)


def test_the_graph_keeps_the_contract(trained):
    onnxruntime = pytest.importorskip("onnxruntime")
    bundle = open_bundle(trained[1])
    session = onnxruntime.InferenceSession(bundle.graph("fp32"), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["crops", "box_scores"]
    shapes = {o.name: o.shape[1:] for o in session.get_outputs()}
    assert shapes == {"logits": [1, 16, 16], "labels": [64, 64], "pixel_scores": [], "iou_scores": [], "quality": []}
    assert bundle.labels.name == "person1" and bundle.threshold == 0.25
    assert set(bundle.manifest["made"]["parity_with_torch"]) == set(shapes)


def test_parsing_bundles_give_no_masks(trained, tmp_path, capsys):
    data = ["--annotations", str(trained[0] / "data" / "annotations" / "instances_val.json"), "--images", str(tmp_path)]
    assert main(["masks", "ccp13-lite0", *data, "--output", str(tmp_path / "r.json"), "--threads", "1"]) == 2
    assert "gives no instance masks" in capsys.readouterr().err
