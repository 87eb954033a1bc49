"""Where Q/DQ stands and, above all, where it does not."""

import pytest

from qanet.calib.graph import GraphView, load_model
from qanet.calib.placement import place
from qanet.errors import QanetError

onnx = pytest.importorskip("onnx")


@pytest.fixture
def model(small_model):
    return load_model(small_model)


def _readers(model, keep=()):
    """tensor -> names of the nodes that read it quantised."""
    placement = place(model, keep)
    return {name: [model.graph.node[i].name for i, _ in pairs] for name, pairs in placement.readers.items()}


def test_the_whole_placement_of_the_small_graph(model):
    assert _readers(model) == {
        "normalised": ["stem"],
        "stem.relu6": ["deep", "project.sum"],  # the residual too
        "deep.relu6": ["project"],
        "project": ["project.sum"],  # no activation behind this convolution: its output may be quantised
        "project.sum": ["down"],
        "down.relu": ["down.up"],  # in front of the resize
        "down.up": ["mix"],
        "mix.relu": ["logits"],  # and not the IoU head's pooling
    }


def test_a_resize_takes_the_range_of_its_input(model):
    placement = place(model, ())
    assert placement.range_of["down.up"] == "down.relu"
    assert "down.up" not in placement.observed()


def test_pooled_convolutions_gemm_and_the_tail_stay_float(model):
    names = {model.graph.node[i].name for i in place(model, ()).convolutions}
    assert names == {"stem", "deep", "project", "down", "mix", "logits"}  # not iou.fc over one pixel, not the Gemm


def test_keep_leaves_nodes_and_what_only_they_read(model):
    readers = _readers(model, ("stem", "mix", "logits"))
    assert "normalised" not in readers
    assert "down.up" not in readers and "down.relu" not in readers
    assert "deep.relu6" in readers
    assert "project" not in _readers(model, ("project.sum",))


def test_default_keep_needs_no_such_nodes_but_a_typing_error_is_found(model):
    assert place(model).convolutions
    with pytest.raises(QanetError, match=r"no node matches the pattern 'stemm'"):
        place(model, ("stemm",))
    with pytest.raises(QanetError, match="no convolution is left"):
        place(model, ("*",))


def test_a_weight_that_is_not_constant_is_left_alone():
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 18]> g (float[N,3,8,8] x, float[2,3,1,1] w) => (float[N,2,8,8] y) '
        "{ y = Conv(x, w) }"
    )
    with pytest.raises(QanetError, match="no convolution is left"):
        place(model, ())


def test_a_projected_residual_is_quantised_on_both_inputs():
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 18]> g (float[N,2,8,8] x) => (float[N,2,8,8] y) '
        "<float[2,2,1,1] w = {1,2,3,4}, float[2,1,1] shift = {1,2}> "
        "{ a = Conv(x, w) b = Conv(x, w) s = Add(a, b) t = Add(s, shift) r = Relu(t) y = Conv(r, w) }"
    )
    placement = place(onnx.shape_inference.infer_shapes(model), ())
    # Not s: an addition of a constant is a bias, which is never quantised.
    assert list(placement.readers) == ["x", "a", "b", "r"]


def test_view_knows_makers_readers_and_shapes(model):
    view = GraphView.of(model.graph)
    assert view.graph.node[view.producer["stem.relu6"]].op_type == "Clip"
    assert [view.graph.node[i].name for i, _ in view.consumers["mix.relu"]] == ["logits", "pooled"]
    assert view.shapes["stem"] == (None, 8, 8, 6)
