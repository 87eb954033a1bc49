"""Many settings in one pass say what each says alone."""

import dataclasses

import numpy as np
import pytest
from metric_cases import CATEGORY, HUMAN, LEFT, RIGHT, person, random_images

from qanet.errors import QanetError
from qanet.metrics import PROTOCOLS, ScoreSweep, Setting, Truth, evaluate_parsing

WEIGHTS = ((1, 0, 0), (1, 0, 3), (1, 0.5, 0), (1, 0.5, 3), (0, 1, 0), (0, 0, 1), (2, 1, 6))


def crowded(seed):
    """Random images with people that nearly repeat each other, so that NMS has work and its index bug shows."""
    truths, predictions = random_images(np.random.default_rng(seed), count=8)
    rng = np.random.default_rng(seed + 100)
    for people in predictions:
        for index in range(len(people)):
            scores = rng.random(3).astype(np.float32)
            labels = people[index].labels.copy()
            labels[rng.random(labels.shape) < 0.02] = 0
            twin = dataclasses.replace(
                people[index], labels=labels, box_score=scores[0], iou_score=scores[1], pixel_score=scores[2]
            )
            people.append(twin)
    return truths, predictions


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("nms_threshold", [0.6, 1.0])
def test_every_setting_is_what_it_is_alone(seed, nms_threshold):
    truths, predictions = crowded(seed)
    predictions[3] = []  # an image where nobody was found
    settings = [Setting(weights, protocol) for weights in WEIGHTS for protocol in PROTOCOLS]
    sweep = ScoreSweep(5, settings, nms_threshold=nms_threshold)
    for truth, people in zip(truths, predictions):
        sweep.add(truth, people)
    reports = sweep.reports()
    assert len({report["ap_r"] for report in reports}) > len(WEIGHTS)  # the settings tell apart
    for setting, report in zip(settings, reports):
        alone = evaluate_parsing(truths, predictions, 5, setting.protocol, setting.weights, nms_threshold=nms_threshold)
        for key, value in report.items():
            np.testing.assert_array_equal(value, alone[key], err_msg=f"{setting} {key}")


def test_a_variant_replaces_the_pixel_scores():
    truths, predictions = crowded(7)
    rng = np.random.default_rng(1)
    sweep = ScoreSweep(5, [Setting(variant=variant) for variant in range(3)])
    replaced = [[] for _ in range(3)]
    for truth, people in zip(truths, predictions):
        pixel, parts = rng.random((len(people), 3)), rng.random((len(people), 3, 4))
        sweep.add(truth, people, pixel, parts)
        for variant, lists in enumerate(replaced):
            lists.append(
                [
                    dataclasses.replace(p, pixel_score=pixel[i, variant], part_pixel_scores=parts[i, variant])
                    for i, p in enumerate(people)
                ]
            )
    for report, people in zip(sweep.reports(), replaced):
        alone = evaluate_parsing(truths, people, 5)
        for key, value in report.items():
            np.testing.assert_array_equal(value, alone[key], err_msg=key)


def test_nan_scores_are_ranked_as_each_protocol_ranks_them():
    people = [person(LEFT, 0.5), person(LEFT, 0.4, box=float("nan")), person(RIGHT, 0.3)]
    settings = [Setting((1, 0.5, 3), protocol) for protocol in PROTOCOLS]
    sweep = ScoreSweep(3, settings, nms_threshold=1)
    sweep.add(Truth(CATEGORY, HUMAN), people)
    for setting, report in zip(settings, sweep.reports()):
        alone = evaluate_parsing([Truth(CATEGORY, HUMAN)], [people], 3, setting.protocol, nms_threshold=1)
        for key, value in report.items():
            np.testing.assert_array_equal(value, alone[key], err_msg=key)


def test_no_image_at_all():
    (report,) = ScoreSweep(3, [Setting()]).reports()
    for key in ("ap_p", "ap_r", "pcp_50", "ece_quality", "rank_correlation_part_quality"):
        assert np.isnan(report[key]) or (key == "ap_r" and report[key] == 0), key


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((1, 1)), np.zeros((1, 1, 2))), r"pixel_scores do not fit .expected \(2, 2 or more\), got \(1, 1\)"),
        ((np.zeros((2, 1)), np.zeros((2, 1, 2))), r"pixel_scores do not fit .expected \(2, 2 or more\), got \(2, 1\)"),
        ((np.zeros((2, 2)), np.zeros((2, 2, 3))), r"part_scores do not fit .expected \(2, 2, 2\), got \(2, 2, 3\)"),
        ((), r"pixel_scores do not fit"),
    ],
)
def test_variants_that_do_not_fit_are_named(arguments, message):
    sweep = ScoreSweep(3, [Setting(variant=1)])
    with pytest.raises(QanetError, match=message):
        sweep.add(Truth(CATEGORY, HUMAN), [person(LEFT), person(RIGHT)], *arguments)


def test_an_unknown_protocol_is_refused():
    with pytest.raises(QanetError, match="unknown evaluation protocol 'lenient'"):
        ScoreSweep(3, [Setting(protocol="lenient")])


def test_the_interval_of_a_gain_holds_what_resampled_images_give():
    truths, predictions = crowded(3)
    sweep = ScoreSweep(5, [Setting((1, 0, 0)), Setting(), Setting(protocol="strict")])
    for truth, people in zip(truths, predictions):
        sweep.add(truth, people)
    low, high = sweep.ap_r_gain_interval(0, 1, resamples=12, level=1.0)
    rng = np.random.default_rng(0)
    gains = []
    for _ in range(12):  # the same images again, each evaluated from scratch
        drawn = rng.integers(0, len(truths), len(truths))
        images = [truths[i] for i in drawn], [predictions[i] for i in drawn]
        before, after = (evaluate_parsing(*images, 5, "official", w)["ap_r"] for w in ((1, 0, 0), (1, 0.5, 3)))
        gains.append(after - before)
    assert (low, high) == pytest.approx((min(gains), max(gains))) and low < high
    narrow = sweep.ap_r_gain_interval(0, 1, resamples=12, level=0.5)
    assert low < narrow[0] <= narrow[1] < high
    assert sweep.ap_r_gain_interval(1, 1, resamples=5) == (0, 0)
    with pytest.raises(QanetError, match="between two protocols .* got official and strict"):
        sweep.ap_r_gain_interval(0, 2)
    assert np.isnan(ScoreSweep(5, [Setting()]).ap_r_gain_interval(0, 0)).all()
