"""Known answers: what a bundle stores of them, when they are current, and how an engine is judged by them."""

import copy
import io
import json

import cv2
import numpy as np
import pytest

from qanet.bundle import open_bundle
from qanet.errors import QanetError, QanetWarning
from qanet.runtime.answers import verdicts as judge
from qanet.runtime.answers.ask import answer, ask, made_answers, run_in_fp32
from qanet.runtime.answers.known import FILE, KnownAnswers, pictures, reduced, renew_answers, stored_answers
from qanet.runtime.answers.verdicts import TOLERANCES, compare, label_agreement
from qanet.runtime.backends import openvino
from qanet.runtime.backends.base import KERNEL_TAIL_OUTPUTS, Origin
from qanet.runtime.backends.onnxruntime import exact_outputs


def origin(graph="fp32", computes_in="fp32"):
    return Origin(graph, "0" * 64, "1.0", "some CPU", computes_in)


def test_the_file_holds_pictures_and_answers_and_is_the_same_each_time(answering):
    data = answering.read(FILE)
    known = KnownAnswers.from_bytes(data)
    assert known.crops.shape == (2, 64, 64, 3) and known.crops.dtype == np.uint8 and known.crops.std() > 20
    assert set(known.outputs["fp32"]) >= {"logits", "labels", "iou_scores", "quality"}
    assert known.outputs["fp32"]["logits"].dtype == np.float16
    assert known.to_bytes() == data
    crops, scores = pictures(answering)
    assert np.array_equal(crops, known.crops) and np.array_equal(scores, known.box_scores)


def test_both_oracles_say_the_same(answering):
    known = stored_answers(answering)
    got = reduced(run_in_fp32(answering.graph("fp32"), known.crops, known.box_scores))
    assert not [d for d in compare(known.outputs["fp32"], got, TOLERANCES["fp32"]) if d.departs]


def test_answers_of_older_weights_or_scales_do_not_count(answering):
    answering.add_file("model.onnx", answering.graph("fp32") + b"")
    assert stored_answers(answering) is not None
    answering.manifest["files"]["model.onnx"] = {"sha256": "1" * 64, "bytes": 1}
    assert stored_answers(answering) is None


def test_answers_of_int8_follow_the_scales_too(answering):
    answering.add_file("scales.json", b"first")
    renew_answers(answering, {"int8": answering.graph("fp32")}, exact_outputs, TOLERANCES)
    assert set(stored_answers(answering).outputs) == {"fp32", "int8"}
    answering.add_file("scales.json", b"second")
    assert set(stored_answers(answering).outputs) == {"fp32"}


def test_changed_answers_are_refused_like_any_changed_file(answering):
    path = answering.path / FILE
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    engine = openvino.engine_from_bundle(answering, "fp32", KERNEL_TAIL_OUTPUTS, 1)
    with pytest.raises(QanetError, match=r"answers\.npz was changed after it was made"):
        answer(answering, engine)


@pytest.mark.parametrize("data", [b"", b"PK\3\4 no archive", b"\x93NUMPY"], ids=["empty", "broken", "other"])
def test_a_file_that_holds_no_answers_is_refused(answering, data):
    answering.add_file(FILE, data)
    with pytest.raises(QanetError, match="cannot be read"):
        stored_answers(answering)


def test_pictures_of_another_size_are_refused(answering):
    known = stored_answers(answering)
    answering.add_file(FILE, KnownAnswers(known.crops[:, :32], known.box_scores, known.outputs).to_bytes())
    with pytest.raises(QanetError, match="pictures of another size"):
        stored_answers(answering)


def test_a_graph_that_answers_nan_makes_no_answers(answering):
    def nan(graph, crops, scores):
        return {"logits": np.full((2, 3, 4, 4), np.nan, np.float32)}

    with pytest.raises(QanetError, match="numbers that are not finite"):
        renew_answers(answering, {"fp32": b""}, nan, TOLERANCES)


def test_an_older_bundle_says_so_once_and_goes_on(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle = open_bundle(tiny_bundle)
    with pytest.warns(QanetWarning, match="brings no known answers"):
        first = made_answers(bundle)
    again = made_answers(bundle)  # from the cache, without a word: a warning would be an error in this test
    assert np.array_equal(first.crops, again.crops) and first.outputs.keys() == again.outputs.keys()
    assert answer(bundle, openvino.engine_from_bundle(bundle, "fp32", KERNEL_TAIL_OUTPUTS, 1)).right


@pytest.mark.parametrize(
    "told", [{"file": 1}, {"file": "x", "of": []}, {"file": "x", "of": {}, "tolerances": {"fp32": {"map": 1}}}, []]
)
def test_a_manifest_with_a_record_that_is_none_is_refused(answering, told):
    path = answering.path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"answers": told}))
    with pytest.raises(QanetError, match="bad field answers"):
        open_bundle(answering.path)


def test_the_limits_stand_in_the_manifest_and_hold(answering):
    engine = openvino.engine_from_bundle(answering, "fp32", KERNEL_TAIL_OUTPUTS, 1)
    known = stored_answers(answering)
    other = copy.deepcopy(known)
    other.outputs["fp32"]["logits"] = other.outputs["fp32"]["logits"] * np.float16(1.05)
    assert answering.manifest["answers"]["tolerances"] == TOLERANCES
    assert not ask(engine, origin(), other).right
    for limit in (0.1, float("inf"), 9e9):  # looser than the package's: whoever forged it gains nothing
        assert not ask(engine, origin(), other, {"fp32": dict.fromkeys(("map", "score", "label", "box"), limit)}).right


@pytest.mark.parametrize("limit, right", [(0, False), (1e-9, False), (1.9e-3, True)])
def test_a_tighter_limit_holds(answering, limit, right):
    engine = openvino.engine_from_bundle(answering, "fp32", KERNEL_TAIL_OUTPUTS, 1)
    known = stored_answers(answering)
    known.outputs["fp32"]["iou_scores"] += np.float32(1e-3)
    limits = {"fp32": dict.fromkeys(("map", "score", "label", "box"), limit)}
    verdict = ask(engine, origin(), known, limits)
    assert verdict.right is right and "off by" in str(verdict)


def forged(change):
    """Bytes of an answers file whose arrays were changed by someone who could mend the hash as well."""

    def make(known):
        arrays = {"box_scores": known.box_scores, "fp32/logits": known.outputs["fp32"]["logits"]}
        for k, crop in enumerate(known.crops):
            arrays[f"crop{k}"] = cv2.imencode(".png", crop)[1].ravel()
        change(arrays)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    return make


@pytest.mark.parametrize(
    "make",
    [
        forged(lambda a: a.update(box_scores=np.float32(1))),
        forged(lambda a: a.update(crop0=np.zeros(40, np.uint8))),
        forged(lambda a: a.update(crop0=np.zeros(40, np.float32))),
        forged(lambda a: a.update(crop0=cv2.imencode(".png", np.zeros((1, 5000, 3), np.uint8))[1].ravel())),
        forged(lambda a: a.update({"fp32/logits": a["fp32/logits"][:1]})),
        forged(lambda a: a.update({"fp32/logits": np.float32(0)})),
        forged(lambda a: a.update({"fp32/logits": a["fp32/logits"].astype(np.complex64)})),
        forged(lambda a: a.pop("fp32/logits")),
        forged(lambda a: a.update({"int8/logits": a.pop("fp32/logits")})),
    ],
    ids=["one score", "no PNG", "no bytes", "huge", "one row", "no row", "complex", "nothing", "of another graph"],
)
def test_answers_that_cannot_be_used_are_an_error_of_one_line(answering, make):
    answering.add_file(FILE, make(stored_answers(answering)))
    engine = openvino.engine_from_bundle(answering, "fp32", KERNEL_TAIL_OUTPUTS, 1)
    with pytest.raises(QanetError, match="cannot be read|has no answers of fp32"):
        answer(answering, engine)


def test_an_output_without_an_answer_is_an_error(answering):
    known = stored_answers(answering)
    del known.outputs["fp32"]["logits"]
    engine = openvino.engine_from_bundle(answering, "fp32", KERNEL_TAIL_OUTPUTS, 1)
    with pytest.raises(QanetError, match="logits has no known answer"):
        ask(engine, origin(), known)


def test_a_bundle_of_engines_alone_is_asked_by_its_own_answers(answering):
    del answering.manifest["graphs"]["fp32"]
    engine = openvino.engine_from_graph(answering.read("model.onnx"), "fp32", KERNEL_TAIL_OUTPUTS, 1)
    engine.origin = origin()
    assert answer(answering, engine).right
    answering.manifest["answers"] = {}
    assert answer(answering, engine) is None  # and `open_engine` says so


def test_floating_point_narrower_than_the_name_is_wrong():
    """An FP32 graph that is computed in BF16: its name proves nothing, its answers do."""
    exact = np.linspace(-8, 8, 2 * 5 * 12 * 8, dtype=np.float32).reshape(2, 5, 12, 8)
    narrow = (exact.view(np.uint32) & 0xFFFF0000).view(np.float32)
    (difference,) = compare({"logits": exact}, {"logits": narrow}, TOLERANCES["fp32"])
    assert difference.departs
    assert not compare({"logits": exact}, {"logits": narrow}, TOLERANCES["bf16"])[0].departs


def test_nan_is_never_right():
    exact = np.ones((1, 2, 3, 4), np.float32)
    broken = exact.copy()
    broken[0, 0, 0, 0] = np.nan
    assert compare({"logits": exact}, {"logits": broken}, TOLERANCES["fp8"])[0].departs
    scores = {"part_scores": np.full((1, 3), 0.5)}, {"part_scores": np.array([[0.5, np.nan, 0.5]])}
    assert compare(*scores, TOLERANCES["fp8"])[0].departs


def test_a_detector_is_judged_by_its_candidates():
    boxes = np.array([[[0, 0, 100, 50], [10, 10, 20, 20]]], np.float32)
    scores = np.array([[0.9, 0.01]], np.float32)
    reference = {"boxes": boxes, "scores": scores}
    far = {"boxes": boxes + np.array([[[0] * 4, [50] * 4]], np.float32), "scores": scores + np.float32([[0, 0.05]])}
    assert not [d for d in compare(reference, far, TOLERANCES["int8"]) if d.departs]  # nobody is there
    moved = {"boxes": boxes + np.float32(10), "scores": scores}
    assert [d.name for d in compare(reference, moved, TOLERANCES["int8"]) if d.departs] == ["boxes"]
    missed = {"boxes": boxes, "scores": np.array([[0.1, 0.01]], np.float32)}
    assert [d.name for d in compare(reference, missed, TOLERANCES["int8"]) if d.departs] == ["scores"]
    ghost = {"boxes": boxes, "scores": np.array([[0.9, 0.8]], np.float32)}
    assert [d.name for d in compare(reference, ghost, TOLERANCES["int8"]) if d.departs] == ["scores"]


def test_agreement_is_of_the_foreground():
    first = np.zeros((1, 4, 4), np.uint8)
    first[0, 0] = 1
    second = first.copy()
    second[0, 0, 0] = 2
    assert label_agreement({"labels": first}, {"labels": second}) == 0.75
    assert label_agreement({"labels": first * 0}, {"labels": first * 0}) == 1.0
    assert label_agreement({"scores": first}, {"scores": first}) is None


def test_every_kind_of_output_has_a_limit_in_every_precision():
    assert all(values.keys() == {"map", "score", "label", "box"} for values in judge.TOLERANCES.values())
    assert judge.TOLERANCES.keys() >= {"fp32", "fp16", "bf16", "int8", "fp8"}
