"""Where Q/DQ stands and, above all, where it does not."""

import pytest

from qanet.calib.placement import GraphView, load_model, place
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
    assert placement.range_of["down.up"] == ("down.relu",)
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


def test_view_knows_makers_and_shapes(model):
    view = GraphView.of(model.graph)
    assert view.graph.node[view.producer["stem.relu6"]].op_type == "Clip"
    assert view.shapes["stem"] == (None, 8, 8, 6)


def _model(body, weights="<float[2,2,1,1] w = {1,2,3,4}, float[2,4,1,1] wide = {1,2,3,4,5,6,7,8}>"):
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 18]> g (float[N,2,8,8] x) => (float[N,2,h,v] y) {weights} {{ {body} }}'
    )
    return onnx.shape_inference.infer_shapes(model)


def test_a_concat_and_its_inputs_share_one_range():
    model = _model("a = Conv(x, w) b = Conv(a, w) c = Concat<axis = 1>(a, b) y = Conv(c, wide)")
    placement = place(model, ())
    assert list(placement.readers) == ["x", "a", "b", "c"]
    assert placement.readers["a"] == ((1, 0), (2, 0))
    assert placement.range_of == {"x": ("x",), "a": ("a", "b"), "b": ("a", "b"), "c": ("a", "b")}
    assert placement.observed() == ["x", "a", "b"]


def test_ranges_go_through_chains_of_copies():
    body = (
        "a = Conv(x, w) r = Relu(a) p = AveragePool<kernel_shape = [2,2], strides = [2,2]>(r) "
        "b = Conv(p, w) s = Sigmoid(b) c = Concat<axis = 1>(p, s) q = MaxPool<kernel_shape = [1,1]>(c) "
        "y = Conv(q, wide)"
    )
    placement = place(_model(body), ())
    assert {name: placement.range_of[name] for name in "rpscq"} == dict.fromkeys("rpscq", ("r", "s"))
    assert "b" not in placement.readers  # its reader, a sigmoid, is no quantised one


def test_a_concat_with_a_constant_or_kept_in_float_is_left_alone():
    weights = "<float[2,2,1,1] w = {1,2,3,4}, float[2,4,1,1] wide = {1,2,3,4,5,6,7,8}, float[1,2,8,8] fixed>"
    model = _model("a = Conv(x, w) c = Concat<axis = 1>(a, fixed) y = Conv(c, wide)", weights)
    assert list(place(model, ()).readers) == ["x", "c"]
    model = _model("a = Conv(x, w) b = Conv(a, w) c = Concat<axis = 1>(a, b) y = Conv(c, wide)")
    model.graph.node[2].name = "join"
    assert place(model, ("join",)).range_of["c"] == ("c",)
