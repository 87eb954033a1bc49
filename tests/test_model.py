"""`qanet.Model` and `Parser.video`: the whole job from Python, over the tiny bundle whose answers are known."""

import json

import cv2
import numpy as np
import pytest

import qanet
from qanet.bundle import open_bundle
from qanet.errors import QanetError
from qanet.runtime.detectors.base import WholeImage


@pytest.fixture
def model(tiny_bundle):
    return qanet.Model(tiny_bundle)


def test_a_repr_names_labels_size_and_graphs(model):
    assert repr(model) == "Model(tiny, ccp13, 64x64, graphs fp32)" and model.labels.name == "ccp13"


def test_a_checkpoint_is_a_model_that_can_only_be_exported(tmp_path):
    with pytest.raises(QanetError, match="no checkpoint .*gone.safetensors"):
        qanet.Model(tmp_path / "gone.safetensors")
    (tmp_path / "here.safetensors").write_bytes(b"tensors")
    model = qanet.Model(tmp_path / "here.safetensors")
    assert "here.safetensors, a checkpoint" in repr(model)
    with pytest.raises(QanetError, match=r"is a checkpoint .expected a bundle.*next: Model\(.*\.export"):
        model.parse(np.zeros((8, 8, 3), np.uint8))


def test_images_are_parsed_by_one_parser_that_stays_open(model):
    image = np.full((64, 64, 3), (255, 0, 0), np.uint8)
    people = model.parse(image, boxes=[[0, 0, 64, 64]])
    assert isinstance(people, qanet.People) and len(people) == 1 and people.boxes.tolist() == [[0, 0, 64, 64]]
    parser = model._parser
    assert model.parse(image, boxes=[[0, 0, 64, 64]]).quality == pytest.approx(people.quality)
    assert model._parser is parser


def test_a_bundle_is_exported_as_a_copy_and_built_there(model, tmp_path):
    copy = model.export(tmp_path / "copy")
    assert copy.path == tmp_path / "copy.qanet" and copy.path != model.path
    report = copy.build(["fp32"], runtimes=["openvino"])
    report.check()
    assert [engine["precision"] for engine in open_bundle(copy.path).engines] == ["fp32"]
    assert open_bundle(model.path).engines == []


def test_a_benchmark_gives_typed_results(model, tmp_path):
    cv2.imwrite(str(tmp_path / "p.png"), np.full((64, 64, 3), (255, 0, 0), np.uint8))
    results = model.benchmark(tmp_path / "p.png", whole_image=True, threads=1, rounds=2, output=None)
    assert {target.precision for target in results.targets} >= {"fp32"}


@pytest.fixture
def parser(shared_tiny_bundle):
    with qanet.load(shared_tiny_bundle, device="cpu") as opened:
        opened.detector = WholeImage()
        yield opened


def test_a_parser_tells_what_it_is(parser):
    assert repr(parser) == "Parser(tiny, ccp13, 64x64, fp32 on openvino, kernel tail)"


def test_a_list_gives_a_list_whose_people_are_those_of_each(parser):
    images = [np.full((40 + n, 50, 3), (255, 0, 0), np.uint8) for n in range(3)]
    together = parser(images)
    assert [people.image_size for people in together] == [(40, 50), (41, 50), (42, 50)]
    for image, people in zip(images, together):
        assert np.array_equal(people.labels, parser(image).labels)
    assert parser([]) == []
    with pytest.raises(QanetError, match="boxes came with a list"):
        parser(images, boxes=[[0, 0, 9, 9]])


def test_a_video_is_a_loop_that_writes_and_closes_what_it_opened(parser, make_clip, tmp_path):
    clip, results = make_clip(5), tmp_path / "o.jsonl"
    frames = list(parser.video(clip, results=results))
    assert [frame.index for frame, _ in frames] == list(range(5))
    assert all(isinstance(people, qanet.People) and len(people) == 1 for _, people in frames)
    assert {people.track_ids[0] for _, people in frames} == {1}
    assert [json.loads(line)["frame"] for line in results.read_text().splitlines()] == list(range(5))


def test_leaving_the_loop_keeps_what_was_written(parser, make_clip, tmp_path):
    video = parser.video(make_clip(30), track=False, output=tmp_path / "o.mp4", results=tmp_path / "o.jsonl")
    for frame, _ in video:
        if frame.index == 3:
            break
    video.close()
    written = len((tmp_path / "o.jsonl").read_text().splitlines())
    assert 4 <= written < 30
    assert cv2.VideoCapture(str(tmp_path / "o.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == written


def test_a_source_that_is_not_there_is_an_error_before_the_loop(parser):
    with pytest.raises(QanetError, match="nothing.mp4: no such file"):
        parser.video("nothing.mp4")
