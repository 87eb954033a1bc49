"""What may be timed: agreement of label maps counted by hand, and the precision that an engine computes in."""

import numpy as np
import pytest

from qanet.benchmarks import check
from qanet.benchmarks.check import (
    CropParsing,
    compare,
    count_products,
    describe_execution,
    execution_warning,
    label_agreement,
    parse_crops,
    precision_refusal,
)
from qanet.benchmarks.schema import Execution
from qanet.benchmarks.variants import list_variants
from qanet.errors import QanetError

A = np.array([[[0, 0, 1, 1], [0, 2, 2, 1]]], np.uint8)
B = np.array([[[0, 0, 1, 2], [1, 2, 2, 1]]], np.uint8)


def test_agreement_counted_by_hand():
    agreement = label_agreement(A, B)
    assert agreement["pixels"] == pytest.approx(6 / 8)
    assert agreement["foreground"] == pytest.approx(4 / 6)  # six pixels are foreground in either
    assert agreement["miou"] == pytest.approx((2 / 3 + 2 / 4 + 2 / 3) / 3)  # classes 0, 1, 2


def test_agreement_without_foreground():
    nothing = np.zeros((1, 2, 2), np.uint8)
    assert label_agreement(nothing, nothing) == {"pixels": 1.0, "foreground": None, "miou": 1.0}


def test_compare_takes_absolute_differences():
    def parsing(values):
        return CropParsing(
            A[[0, 0]], {name: np.array(values, np.float32) for name in ("quality", "iou", "pixel")}, True
        )

    agreement = compare(parsing([0.5, 0.5]), parsing([0.4, 0.8]))
    difference = agreement.quality_score_difference
    assert (difference.mean, difference.max) == pytest.approx((0.2, 0.3), abs=1e-5)
    assert agreement.crops == 2 and agreement.pixels == 1.0


def test_parse_crops_gives_labels_at_crop_resolution(fake_engine, fake_bundle):
    flat = np.full((3, 16, 12, 3), 5, np.uint8)
    flat[1] = 7
    parsing = parse_crops(fake_engine(), fake_bundle, flat, np.ones(3, np.float32))
    assert parsing.labels.shape == (3, 16, 12) and parsing.finite
    assert [np.unique(label).tolist() for label in parsing.labels] == [[5], [7], [5]]
    confidence = np.exp(6) / (np.exp(6) + 12)
    assert parsing.scores["pixel"] == pytest.approx([confidence] * 3, abs=1e-5)
    assert parsing.scores["quality"] == pytest.approx([(0.8**0.5 * confidence**3) ** (1 / 4.5)] * 3, abs=1e-5)


def test_parse_crops_stays_within_the_largest_batch(fake_engine, fake_bundle):
    engine = fake_engine()
    many = np.zeros((35, 16, 12, 3), np.uint8)
    assert len(parse_crops(engine, fake_bundle, many, np.ones(35, np.float32)).labels) == 35
    assert engine.batches == [16, 16, 3]


def not_finite(outputs):
    outputs["iou_scores"][0] = np.nan
    return outputs


def shuffled(outputs):
    return {**outputs, "logits": np.roll(outputs["logits"], 1, axis=1)}


def broken(outputs):
    raise RuntimeError("out of memory")


@pytest.fixture
def checked(monkeypatch, fake_engine, fake_bundle, crops):
    """Checks precisions whose engines spoil their outputs in the given way."""

    def call(spoilers, precisions=("fp32", "fp16")):
        def open_engine(bundle, device, precision, outputs, threads=None):
            if device == "onnxruntime":
                return fake_engine("fp32")
            if precision not in spoilers:
                raise QanetError(f"no {precision} engine")
            return fake_engine(precision, spoilers[precision])

        monkeypatch.setattr(check, "open_engine", open_engine)
        variants = list_variants([fake_bundle], list(precisions), ["kernel"], ["cpu"])
        return check.check_variants(fake_bundle, variants, None, *crops)

    return call


def test_equal_engines_pass(checked):
    result = checked({"fp32": dict, "fp16": dict})
    assert {p: c.passed for p, c in result.checks.items()} == {"fp32": True, "fp16": True}
    assert result.checks["fp16"].label_agreement == 1.0 and result.checks["fp16"].against == "fp32 on fake"
    assert list(result.engines) == ["fp32", "fp16"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(not_finite, "not finite"), (shuffled, "at least 90% are needed"), (broken, "does not run: RuntimeError: out of")],
)
def test_an_engine_that_is_wrong_is_refused_with_the_reason(checked, spoil, reason):
    result = checked({"fp32": dict, "fp16": spoil})
    assert not result.checks["fp16"].passed and reason in str(result.checks["fp16"].reason)
    assert list(result.engines) == ["fp32"]


def test_fp32_is_checked_against_another_runtime(checked):
    pytest.importorskip("onnxruntime", reason="the oracle is asked for only where ONNX Runtime is installed")
    result = checked({"fp32": shuffled}, ["fp32"])
    assert not result.checks["fp32"].passed and "fp32 on onnxruntime" in str(result.checks["fp32"].reason)


def test_fp32_need_not_be_asked_for_to_be_the_reference(checked):
    result = checked({"fp32": dict, "fp16": shuffled}, ["fp16"])
    assert list(result.checks) == ["fp16"] and not result.checks["fp16"].passed and result.engines == {}


def test_an_engine_that_is_missing_says_so(checked):
    result = checked({"fp32": dict})
    assert result.checks["fp16"].reason == "it does not run: no fp16 engine"


def test_labels_just_above_the_floor_pass_and_just_below_fail():
    reference = CropParsing(np.zeros((1, 10, 10), np.uint8), {}, True)
    for wrong, passed in ((10, True), (11, False)):
        labels = reference.labels.copy()
        labels.reshape(-1)[:wrong] = 1
        assert check.judge(CropParsing(labels, {}, True), reference, "fp32").passed is passed


def test_the_graph_tail_is_checked_by_the_labels_it_gives(crops, fake_bundle):
    class GraphTail:
        runtime, outputs = "fake", ("labels", "pixel_scores", "iou_scores", "quality")

        def __init__(self, quality):
            self.quality = quality

        def run(self, batch, box_scores):
            scores = np.full(len(batch), 0.5, np.float32)
            return {
                "labels": (batch[..., 0] % 13).astype(np.uint8),
                "pixel_scores": scores,
                "iou_scores": scores,
                "quality": np.full(len(batch), self.quality, np.float32),
            }

    images, scores = crops
    parsing = parse_crops(GraphTail(0.5), fake_bundle, images, scores)
    assert parsing.finite and np.array_equal(parsing.labels, images[..., 0] % 13)
    assert set(parsing.scores) == {"iou", "pixel", "quality"}
    broken = parse_crops(GraphTail(np.nan), fake_bundle, images, scores)
    assert not broken.finite and not broken.labels.any()


def entry(precision, hint, share):
    census = {"multiply_add_shares": {"int8": share, "fp32": 1 - share}}
    return {"runtime": "fake", "precision": precision, "file": f"{precision}-{hint}", "hint": hint, "census": census}


def test_the_census_is_that_of_the_engine_with_the_same_type(fake_bundle, fake_engine):
    fake_bundle.manifest["engines"] = [entry("fp32", "f32", 0.0), entry("int8", "bf16", 0.5), entry("int8", "f32", 0.9)]
    engine = fake_engine("int8")
    engine.floating_point = "f32"
    execution = describe_execution(fake_bundle, engine)
    assert execution.multiply_add_shares["int8"] == 0.9 and execution.floating_point == "f32"
    engine.floating_point = "f16"
    assert describe_execution(fake_bundle, engine).multiply_add_shares is None


def test_an_engine_that_does_not_tell(fake_bundle, fake_engine):
    execution = describe_execution(fake_bundle, fake_engine("fp16"))
    assert execution == Execution("fake", "fp16")
    assert precision_refusal("fp16", execution) is None
    assert execution_warning("fp16", execution) == "fp16: fake does not report the precision of its layers"


@pytest.mark.parametrize(
    ("precision", "floating_point", "words"),
    [
        ("fp16", "f32", "ran all layers in f32"),
        ("int8", "f32", "ran all layers that are not INT8 in f32"),
        ("bf16", "f32", "ran all layers in f32"),
        ("fp16", "bf16", None),
        ("fp32", "f32", None),
        ("fp16", None, "does not report"),
        ("fp32", None, None),
    ],
)
def test_a_precision_that_was_not_delivered_is_told(precision, floating_point, words):
    execution = Execution("fake", floating_point=floating_point)
    warning = execution_warning(precision, execution)
    assert warning is None if words is None else words in str(warning)


@pytest.mark.parametrize(
    ("precision", "shares", "products", "words"),
    [
        ("fp32", {"fp32": 1.0}, None, None),
        ("fp32", {"fp32": 0.9, "bf16": 0.1}, None, "not built in fp32: its multiply-adds run in fp32 90%, bf16 10%"),
        ("fp16", {"fp32": 1.0, "bf16": 0.0}, None, "not built in fp16"),
        ("fp16", {"bf16": 0.9, "fp32": 0.1}, None, None),
        ("int8", {"int8": 0.93, "bf16": 0.07}, None, None),
        ("int8", {"int8": 0.2, "fp32": 0.8}, None, "not built in int8: its multiply-adds run in int8 20%, fp32 80%"),
        ("int8", None, {"fp32": 40}, "its matrix products run in fp32 100%"),
        ("int8", None, {"int8": 40, "bf16": 3}, None),
        ("int8", {"int8": 0.0}, None, None),
        ("int8", None, None, None),
    ],
)
def test_what_was_not_built_as_asked_is_refused(precision, shares, products, words):
    execution = Execution("fake", floating_point="f32", multiply_add_shares=shares, products=products)
    refusal = precision_refusal(precision, execution)
    assert refusal is None if words is None else words in str(refusal)


def test_an_open_engine_tells_what_its_products_run_in(shared_tiny_bundle):
    pytest.importorskip("openvino")
    from qanet.bundle import open_bundle
    from qanet.runtime.backends.select import open_engine

    engine = open_engine(open_bundle(shared_tiny_bundle), "cpu", "fp32", ("logits", "iou_scores"), 1)
    assert count_products(engine) == {"fp32": 1}
