"""Engines of TensorRT-RTX, built ahead of time and without a GPU: what they deliver and what cannot be built."""

import os
import signal

import pytest
from engine_graphs import CONVOLUTIONS, make_graph, needs_rtx
from rtx_header import TARGETS, plan_targets

from qanet.errors import QanetError
from qanet.export.backends import tensorrt
from qanet.export.backends.census import check_delivered
from qanet.export.backends.tensorrt_options import Options


@needs_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_rtx_builds_for_two_generations_and_delivers(graphs, precision):
    lines = []
    engine = tensorrt.build(graphs[precision], targets=("sm_86", "sm_120"), report=lines.append)
    assert plan_targets(engine.data) == engine.targets == ("sm_86", "sm_120")
    assert (engine.runtime, engine.inputs) == ("tensorrt-rtx", ("crops", "box_scores"))
    assert engine.outputs == ("logits", "iou_scores", "quality")
    assert len(lines) == 2 and "sm_86, sm_120" in lines[0]
    assert [layer.name for layer in engine.census.compute] == [*CONVOLUTIONS, "iou"]
    for asked in ("fp32", "fp16", "int8"):
        if asked == precision:
            check_delivered(engine.census, asked)
        else:
            with pytest.raises(QanetError, match="stem"):
                check_delivered(engine.census, asked)
    convolutions = sum(layer.multiply_adds for layer in engine.census.compute if layer.op == "Conv")
    total = sum(layer.multiply_adds for layer in engine.census.compute)
    assert engine.census.multiply_add_shares[precision] >= convolutions / total


@needs_rtx
def test_one_target_without_int8_takes_it_from_all_and_the_census_shows_it(graphs):
    options = {"outputs": ["logits"]}
    check_delivered(tensorrt.build(graphs["int8"], targets=["sm_86"], **options).census, "int8")
    engine = tensorrt.build(graphs["int8"], targets=["sm_75", "sm_86"], **options)
    with pytest.raises(QanetError, match="3 of 3 compute layers: stem .fp32., body .fp32., classify .fp32."):
        check_delivered(engine.census, "int8")


@needs_rtx
def test_rtx_keeps_the_outputs_of_a_kernel_tail_in_static_buckets(graphs):
    engine = tensorrt.build(
        graphs["fp16"],
        targets=["sm_89"],
        outputs=("logits", "iou_scores"),
        options=Options(static_buckets=True, max_batch=4),
    )
    assert (engine.inputs, engine.outputs) == (("crops",), ("logits", "iou_scores"))
    check_delivered(engine.census, "fp16")
    dynamic = tensorrt.build(graphs["fp16"], targets=["sm_89"], outputs=("logits", "iou_scores"))
    assert sum(engine.census.layers.values()) > 2 * sum(dynamic.census.layers.values())  # profiles for 1, 2 and 4


@needs_rtx
def test_a_plan_is_for_the_generation_it_was_built_for(graphs):
    for name in TARGETS:
        engine = tensorrt.build(graphs["fp16"], targets=[name], outputs=["logits"])
        assert plan_targets(engine.data) == (name,)


@needs_rtx
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": ("sm_86", "sm_87")}, "cannot build for sm_87 .expected some of sm_75"),
        ({"targets": ()}, "no target"),
        ({"runtime": "tensorflow"}, "'tensorflow'; choose from tensorrt, tensorrt-rtx"),
        ({"options": Options(version_compatible=True)}, "tensorrt-rtx .* has no version-compatible engines"),
        ({"options": Options(strip_weights=True)}, "has no engines without weights"),
        ({"options": Options(hardware_compatibility="ampere+")}, "has no hardware compatibility levels.*--target"),
        ({"options": Options(dla=0)}, "has no DLA"),
    ],
)
def test_options_that_cannot_be_honoured(graphs, arguments, message):
    with pytest.raises(QanetError, match=message):
        tensorrt.build(graphs["fp32"], **arguments)


@needs_rtx
def test_a_graph_that_rtx_refuses_names_its_first_failing_node():
    graph = make_graph(first="Transpose").SerializeToString()  # bytes may be cast and nothing else
    with pytest.raises(QanetError, match=r"model\.onnx cannot be parsed at node 0 'transpose' \(Transpose\).*UInt8"):
        tensorrt.build(graph)


@needs_rtx
def test_a_build_that_fails_says_what_was_logged(graphs):
    with pytest.raises(QanetError, match="could not build model.onnx for sm_75: .*FP32 GEMM is not supported"):
        tensorrt.build(graphs["fp32"], targets=["sm_75"])
    after = tensorrt.build(graphs["int8"], targets=["sm_86"], outputs=["logits"])
    check_delivered(after.census, "int8")  # the library would build it for sm_75, in FP32


@needs_rtx
def test_a_timing_cache_is_not_promised_where_there_is_none(graphs, tmp_path):
    engine = tensorrt.build(graphs["fp16"], options=Options(timing_cache=tmp_path / "cache"))
    assert any("no timing cache" in message for message in engine.messages)
    assert not (tmp_path / "cache").exists()


class Bar:
    """What a tqdm bar is told; `after` is called once the first step was."""

    def __init__(self, after=lambda: None):
        self.total, self.done, self.phases, self.after = 0, 0, [], after

    def set_description(self, phase):
        self.phases.append(phase)

    def update(self, steps):
        assert steps >= 0
        self.done += steps
        self.after()


@needs_rtx
def test_the_progress_bar_ends_full(graphs):
    bar = Bar()
    tensorrt.build(graphs["fp16"], targets=["sm_86"], outputs=["logits"], bar=bar)
    assert bar.done == bar.total > 20 and "Building engine" in bar.phases


@needs_rtx
def test_ctrl_c_ends_a_build_between_two_steps(graphs):
    before, bar = signal.getsignal(signal.SIGINT), Bar(lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        tensorrt.build(graphs["fp16"], targets=["sm_86"], outputs=["logits"], bar=bar)
    assert signal.getsignal(signal.SIGINT) is before
    check_delivered(tensorrt.build(graphs["int8"], targets=["sm_86"], outputs=["logits"]).census, "int8")
    whole = Bar()
    tensorrt.build(graphs["fp16"], targets=["sm_86"], outputs=["logits"], bar=whole)
    assert bar.done < whole.done
