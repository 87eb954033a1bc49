"""How far an engine may be from ONNX Runtime, and how the first layer that is too far is found."""

import numpy as np
import pytest
from engine_graphs import make_graph, onnx

from qanet.errors import QanetError
from qanet.export.building.verify import drawn_crops, mark_layers, verify
from qanet.runtime.answers.verdicts import TOLERANCES, compare, relative_rms

SIZE = (32, 24)
OUTPUTS = ("logits", "iou_scores", "quality")


def run_of(model):
    """An engine: ONNX Runtime on a model."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    known = {value.name for value in session.get_inputs()}

    def run(crops, boxes, outputs):
        feed = {name: value for name, value in (("crops", crops), ("box_scores", boxes)) if name in known}
        return dict(zip(outputs, session.run(list(outputs), feed)))

    return run


def spoil(model, name, factor):
    """Scale a weight of the model."""
    tensor = next(t for t in model.graph.initializer if t.name == name)
    values = onnx.numpy_helper.to_array(tensor)
    tensor.CopyFrom(onnx.numpy_helper.from_array((values * factor).astype(values.dtype), name))
    return model


def spoiled(name, factor):
    return lambda graph, outputs: run_of(spoil(onnx.load_model_from_string(graph), name, factor))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_of_the_same_graph_is_within_every_limit(precision):
    model = make_graph(precision)
    found = verify(
        model.SerializeToString(), run_of(model), OUTPUTS, precision, drawn_crops(3, SIZE), lambda graph, outputs: None
    )
    assert [difference.name for difference in found] == list(OUTPUTS)
    assert all(difference.value <= (1e-5 if precision == "fp32" else difference.limit) for difference in found)


@pytest.mark.parametrize(
    ("weight", "layer"),
    [("stem.weight", "stem"), ("body.weight", "body"), ("classify.weight", "classify"), ("gemm.weight", "iou")],
)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_first_layer_that_departs_is_named(weight, layer, precision):
    graph = make_graph(precision).SerializeToString()
    engine = run_of(spoil(make_graph(precision), weight, 1.5))
    with pytest.raises(QanetError, match=f"the engine departs from ONNX Runtime at .*; .* departs: {layer} .0"):
        verify(graph, engine, OUTPUTS, precision, drawn_crops(2, SIZE), spoiled(weight, 1.5))


def test_an_engine_that_departs_by_fusion_alone_is_told_apart():
    graph = make_graph().SerializeToString()
    with pytest.raises(QanetError, match="no layer departs once the end of each is an output"):
        verify(
            graph,
            run_of(spoil(make_graph(), "body.weight", 2)),
            OUTPUTS,
            "fp32",
            drawn_crops(1, SIZE),
            lambda marked, outputs: run_of(onnx.load_model_from_string(marked)),
        )


def test_layers_end_behind_what_runtimes_fuse_into_them():
    marked, ends = mark_layers(make_graph().SerializeToString())
    assert list(ends.items()) == [
        ("b", "stem"),
        ("d", "body"),
        ("logits", "classify"),
        ("h", "iou"),
        ("iou_scores", "flat"),
        ("quality", "fuse"),
    ]
    onnx.checker.check_model(onnx.load_model_from_string(marked), full_check=True)


@pytest.mark.parametrize(
    ("name", "expected", "got", "value"),
    [
        ("logits", np.ones((1, 2, 3, 3)), np.ones((1, 2, 3, 3)) * 1.25, 0.25),
        ("logits", np.zeros((1, 2, 3, 3)), np.zeros((1, 2, 3, 3)), 0),
        ("logits", np.zeros((1, 2, 3, 3)), np.ones((1, 2, 3, 3)), 1),
        ("labels", np.zeros((1, 2, 2), np.uint8), np.array([[[0, 1], [0, 0]]], np.uint8), 0.25),
        ("quality", np.array([0.5, 0.25]), np.array([0.5, 0.75]), 0.5),
        ("part_scores", np.array([[0.5, 0.0, 0.0, 0.0]]), np.array([[0.5, 0.0, 0.0, 0.4]]), 0),  # a part that comes
        ("part_scores", np.array([[0.5, 0.2, 0.0, 0.0]]), np.array([[0.5, 0.6, 0.0, 0.4]]), 0.2),
    ],
)
def test_differences_by_kind_of_output(name, expected, got, value):
    (difference,) = compare({name: expected}, {name: got}, TOLERANCES["fp32"])
    assert difference.value == pytest.approx(value) and difference.departs == (value > difference.limit)


def test_nan_departs_and_another_shape_is_refused():
    nan = np.full((1, 2, 3, 3), np.nan)
    (difference,) = compare({"logits": np.ones_like(nan)}, {"logits": nan}, TOLERANCES["int8"])
    assert difference.departs
    with pytest.raises(QanetError, match="the engine's logits has another shape"):
        compare({"logits": np.ones((1, 2, 3, 3))}, {"logits": np.ones((1, 2, 3, 4))}, TOLERANCES["fp32"])
    assert relative_rms(np.ones(4, np.float16), np.full(4, 1.5, np.float16)) == pytest.approx(0.5)


def test_a_graph_that_onnx_runtime_refuses(tmp_path):
    with pytest.raises(QanetError, match="ONNX Runtime cannot run the graph"):
        verify(b"no graph", lambda *_: {}, OUTPUTS, "fp32", drawn_crops(1, SIZE), lambda *_: None)


def test_drawn_crops_are_the_same_each_time_and_no_noise():
    crops = drawn_crops(2, (384, 288))
    assert crops.shape == (2, 384, 288, 3) and crops.dtype == np.uint8
    assert np.array_equal(crops, drawn_crops(2, (384, 288))) and not np.array_equal(crops[0], crops[1])
    assert np.abs(np.diff(crops.astype(int), axis=2)).mean() < 5 and crops.std() > 40
