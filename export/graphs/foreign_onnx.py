"""Somebody's ONNX segmenter: its input and its logits are found, and it becomes the middle of a parsing graph.

    network = open_network(Path("model.onnx"), labels)      # recognises; raises where it must be told
    graph = parsing_graph(network, labels, weights)         # crops in, QAM out

What stands after the logits is left out: a softmax or sigmoid, a resize to the picture's size, an ArgMax. Shapes are
made static but for the batch, which becomes dynamic.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.export.graphs.foreign import NetworkForm, Normalise, Tail, TailWithIou, gives_of
from qanet.export.graphs.network import OPSET, OUTPUTS, to_onnx
from qanet.labels import LabelSet

LAYOUTS = ("NCHW", "NHWC")
_PREFIX = "net."
_ACTIVATIONS = {"Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "sigmoid", "HardSigmoid": "sigmoid"}
_PASSED = ("Identity", "Cast", "ArgMax", "Resize", "Upsample", "Squeeze", "Unsqueeze", *_ACTIVATIONS)
_NEXT = "name it: --logits TENSOR, as a viewer such as netron.app shows it"


@dataclass(frozen=True)
class ForeignNetwork:
    """An ONNX network, cut at its logits.

    Attributes:
        model: onnx.ModelProto of opset OPSET: one input, the logits and perhaps the IoU as outputs, dynamic batch.
        skipped: operators behind the logits that were left out.
    """

    model: Any
    form: NetworkForm
    input: str
    logits: str
    iou: str | None
    skipped: tuple[str, ...]

    def lines(self, labels: LabelSet) -> list[str]:
        """What was recognised, for people to check."""
        left_out = f", without the {' and '.join(self.skipped)} behind it" if self.skipped else ""
        return [f"input {self.input!r}, logits {self.logits!r}{left_out}", *self.form.lines(labels)]


def open_network(
    path: Path,
    labels: LabelSet,
    normalisation: tuple[tuple[float, float, float], tuple[float, float, float]] | None,
    *,
    input_hw: tuple[int, int] | None = None,
    layout: str | None = None,
    colours: str = "rgb",
    logits: str | None = None,
    iou: str | None = None,
) -> ForeignNetwork:
    """Recognise a network's input and outputs.

    Args:
        normalisation: mean and std in values 0..255; None for a network that takes uint8.
        input_hw, layout, logits, iou: what the file does not say, or says otherwise.
    Raises:
        QanetError: what cannot be seen in the file and was not given, or does not fit the label set.
    """
    import onnx

    try:
        model = onnx.load(str(path))
    except Exception as error:  # of the file system and of protobuf
        raise QanetError(f"cannot read {path} as ONNX", got=str(error) or type(error).__name__) from error
    source = _only_input(model, path)
    layout = layout or _layout_of(source, path)
    size = _size_of(source, layout, input_hw, path)
    is_byte = source.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    if normalisation is None and not is_byte:
        raise QanetError("no normalisation", expected="mean and std", got=None)
    model = _upgraded(model, path)
    source = _only_input(model, path)
    _set_shape(source, layout, size)
    named, skipped = (logits, ()) if logits else _logits_of(model, labels, path)
    _cut_to(model, source.name, [named, *([iou] if iou else [])], path)
    first, second = (_run(model, source, count, path)[0] for count in (1, 2))
    if first.ndim != 4 or second.shape[0] != 2:
        raise QanetError(f"{path}: {named} is no map of logits", expected="(N, classes, h, w)", got=first.shape)
    if first.shape[1] not in (labels.num_classes, labels.num_classes - 1) and first.shape[3] in (
        labels.num_classes,
        labels.num_classes - 1,
    ):
        named = _transposed(model, named)
        first = first.transpose(0, 3, 1, 2)
    mean, std = normalisation or ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    hw = (int(first.shape[2]), int(first.shape[3]))
    form = NetworkForm(size, layout, colours, mean, std, int(first.shape[1]), hw, "logits", iou is not None, is_byte)
    form.adds_background(labels)
    if not any(word in _ACTIVATIONS for word in skipped):
        form = replace(form, gives=gives_of(torch.from_numpy(first.astype(np.float32))))
    return ForeignNetwork(model, form, source.name, named, iou, skipped)


def takes_bytes(path: Path) -> bool:
    """Whether a network takes uint8, and so normalises by itself."""
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception:
        return False  # `open_network` says why
    return any(v.type.tensor_type.elem_type == onnx.TensorProto.UINT8 for v in model.graph.input)


def parsing_graph(network: ForeignNetwork, labels: LabelSet, weights: tuple[float, float, float]) -> bytes:
    """The whole graph: crops, normalisation, network, adapter, scores, QAM; as `qanet.export.graphs.network` states."""
    import onnx
    from onnx import compose

    form, (h, w) = network.form, network.form.logits_hw
    head = onnx.load_model_from_string(to_onnx(Normalise(form), ["normalised"], form.input_hw, ["crops"]))
    head = compose.add_prefix(head, "pre.", rename_inputs=False, rename_outputs=False)
    tail = (TailWithIou if form.has_iou else Tail)(form, labels, weights)
    names = ["raw_logits", *(["raw_iou"] if form.has_iou else []), "box_scores"]
    iou = (torch.ones(_iou_shape(network)),) if form.has_iou else ()
    example = (torch.zeros(2, form.channels, h, w), *iou, torch.ones(2))
    end = onnx.load_model_from_string(to_onnx(tail, OUTPUTS, form.input_hw, names, example))
    body = compose.add_prefix(network.model, _PREFIX)
    version = max(part.ir_version for part in (head, body, end))
    for part in (head, body, end):
        part.ir_version = version
    joined = compose.merge_models(head, body, io_map=[("normalised", _PREFIX + network.input)])
    maps = [(_PREFIX + network.logits, "raw_logits")]
    maps += [(_PREFIX + str(network.iou), "raw_iou")] if network.iou else []
    whole = compose.merge_models(joined, end, io_map=maps, outputs=list(OUTPUTS))
    whole.producer_name, whole.graph.name = "qanet-edge", "qanet"
    onnx.checker.check_model(whole, full_check=True)
    data: bytes = whole.SerializeToString(deterministic=True)
    return data


def _iou_shape(network: ForeignNetwork) -> tuple[int, ...]:
    value = next(v for v in network.model.graph.output if v.name == network.iou)
    return (2, *(d.dim_value for d in value.type.tensor_type.shape.dim[1:]))


# Recognition


def _only_input(model: Any, path: Path) -> Any:
    """The one input that takes a picture."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    maps = [value for value in inputs if len(value.type.tensor_type.shape.dim) == 4]
    if len(inputs) != 1 or len(maps) != 1:
        got = ", ".join(f"{v.name} of rank {len(v.type.tensor_type.shape.dim)}" for v in inputs)
        raise QanetError(f"{path} does not take one picture", expected="one input of rank 4", got=got or "none")
    return maps[0]


def _dims(value: Any) -> list[int]:
    return [axis.dim_value for axis in value.type.tensor_type.shape.dim]


def _layout_of(source: Any, path: Path) -> str:
    dims = _dims(source)
    is_nchw, is_nhwc = dims[1] == 3, dims[3] == 3
    if is_nchw == is_nhwc:
        raise QanetError(
            f"{path}: the layout of input {source.name} is not plain",
            expected=f"--layout {' or '.join(LAYOUTS)}",
            got=[d or "?" for d in dims],
        )
    return LAYOUTS[0] if is_nchw else LAYOUTS[1]


def _size_of(source: Any, layout: str, given: tuple[int, int] | None, path: Path) -> tuple[int, int]:
    dims = _dims(source)
    own = (dims[2], dims[3]) if layout == "NCHW" else (dims[1], dims[2])
    size = given or own
    if not all(size):
        raise QanetError(f"{path} takes pictures of any size", expected="--input-size HxW", got="none given")
    if any(fixed not in (0, asked) for fixed, asked in zip(own, size)):
        raise QanetError(
            f"{path} takes one size of pictures", expected=f"{own[0]}x{own[1]}", got=f"{size[0]}x{size[1]}"
        )
    if any(side < 64 or side % 4 for side in size):
        raise QanetError("bad input size", expected="multiples of 4 from 64 on", got=f"{size[0]}x{size[1]}")
    return size


def _logits_of(model: Any, labels: LabelSet, path: Path) -> tuple[str, tuple[str, ...]]:
    """The tensor before activations, resizes and ArgMax of the one output that can be a map, and what was passed."""
    makers = {name: node for node in model.graph.node for name in node.output}
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in model.graph.output}
    maps = [name for name, rank in ranks.items() if rank in (0, 3, 4)]
    fitting = [v.name for v in model.graph.output if {labels.num_classes, labels.num_classes - 1} & {*_dims(v)[1::2]}]
    chosen = maps if len(maps) == 1 else fitting
    if len(chosen) != 1:
        shown = ", ".join(f"{v.name} {[d or '?' for d in _dims(v)]}" for v in model.graph.output)
        raise QanetError(f"{path}: which output holds the logits?", expected="one map", got=shown, next_command=_NEXT)
    name, passed = chosen[0], []
    while (node := makers.get(name)) is not None and node.op_type in _PASSED:
        passed.append(node.op_type)
        name = node.input[0]
    if node is None:
        raise QanetError(f"{path}: no layer stands before {chosen[0]}", expected="a network", next_command=_NEXT)
    return name, tuple(dict.fromkeys(word for word in reversed(passed) if word not in ("Identity", "Cast")))


# Surgery


def _upgraded(model: Any, path: Path) -> Any:
    """The model in opset OPSET, without custom operators."""
    from onnx import version_converter

    opsets = {entry.domain: entry.version for entry in model.opset_import}
    used = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    if used:
        raise QanetError(f"{path} has operators of one runtime's own", expected="ONNX operators", got=sorted(used)[0])
    if opsets.get("", opsets.get("ai.onnx", 0)) > OPSET:
        raise QanetError(f"{path} has too new an opset", expected=f"{OPSET} or older", got=opsets.get(""))
    if opsets.get("", 0) == OPSET:
        return model
    try:
        return version_converter.convert_version(model, OPSET)
    except Exception as error:  # RuntimeError, and what the C++ converter throws
        got = (str(error).splitlines() or [type(error).__name__])[0]
        expected = f"a graph that onnx converts to opset {OPSET}"
        raise QanetError(f"{path} cannot be converted", expected=expected, got=got) from error


def _set_shape(source: Any, layout: str, size: tuple[int, int]) -> None:
    dims = source.type.tensor_type.shape.dim
    wanted: tuple[int | str, ...] = ("N", 3, *size) if layout == "NCHW" else ("N", *size, 3)
    for axis, value in zip(dims, wanted):
        axis.Clear()
        if isinstance(value, str):
            axis.dim_param = value
        else:
            axis.dim_value = value


def _cut_to(model: Any, source: str, wanted: Sequence[str], path: Path) -> None:
    """Keep what leads from the input to the wanted tensors; fold shapes, free the batch."""
    import onnx

    known = {name for node in model.graph.node for name in node.output}
    for name in wanted:
        if name not in known:
            raise QanetError(f"{path} has no tensor {name!r}", expected="one of its graph", next_command=_NEXT)
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    needed: set[int] = set()
    stack = list(wanted)
    while stack:
        node = makers.get(stack.pop())
        if node is not None and id(node) not in needed:
            needed.add(id(node))
            stack += list(node.input)
    kept = [node for node in graph.node if id(node) in needed]
    read = {name for node in kept for name in node.input}
    copies = [type(node).FromString(node.SerializeToString()) for node in kept]
    del graph.node[:], graph.value_info[:], graph.output[:]
    graph.node.extend(copies)
    weights = [t for t in graph.initializer if t.name in read]
    inputs = [v for v in graph.input if v.name == source]
    weights, inputs = (
        [type(t).FromString(t.SerializeToString()) for t in weights],
        [type(v).FromString(v.SerializeToString()) for v in inputs],
    )
    del graph.initializer[:], graph.input[:]
    graph.initializer.extend(weights)
    graph.input.extend(inputs)
    graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in wanted)
    _fold_shapes(model, graph.input[0], path)
    outputs = _run(model, graph.input[0], 2, path)
    for value, array in zip(graph.output, outputs):
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, kind, ["N", *array.shape[1:]]))


def _fold_shapes(model: Any, source: Any, path: Path) -> None:
    """Integers that the graph computes from its shapes become constants: those that do not depend on the batch as they
    are; a Reshape keeps the batch by its 0, and a Resize goes by scales instead of sizes."""
    import onnx

    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=False).graph
    whole = {v.name for v in inferred.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.INT64}
    makers = {name: node for node in graph.node for name in node.output}
    wanted = [name for name in makers if name in whole]
    maps = [name for node in graph.node if node.op_type == "Resize" for name in (node.input[0], node.output[0])]
    if not wanted:
        return
    one, two = (dict(zip([*wanted, *maps], _run(model, source, n, path, [*wanted, *maps]))) for n in (1, 2))
    constants: dict[str, NDArray[Any]] = {}
    for node in graph.node:
        shape = node.input[1] if node.op_type == "Reshape" else ""
        if shape in one and not np.array_equal(one[shape], two[shape]) and one[shape][0] * 2 == two[shape][0]:
            constants[shape + ".batch"] = np.array([0, *one[shape][1:]], np.int64)
            node.input[1] = shape + ".batch"
        if node.op_type == "Resize" and len(node.input) == 4 and node.input[3]:
            before, after = one[node.input[0]].shape, one[node.output[0]].shape
            scales = np.array([a / b for a, b in zip(after, before)], np.float32)
            constants[node.output[0] + ".scales"] = scales
            del node.input[2:]
            node.input.append(node.output[0] + ".scales")
    constants |= {name: one[name] for name in wanted if np.array_equal(one[name], two[name])}
    kept = [node for node in graph.node if not all(name in constants for name in node.output)]
    graph.initializer.extend(onnx.numpy_helper.from_array(values, name) for name, values in constants.items())
    copies = [type(node).FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(copies)
    _drop_unread(graph)


def _drop_unread(graph: Any) -> None:
    """Nodes and weights that lead to no output."""
    outputs = {value.name for value in graph.output}
    while True:
        read = {name for node in graph.node for name in node.input} | outputs
        kept = [node for node in graph.node if any(name in read for name in node.output)]
        if len(kept) == len(graph.node):
            break
        copies = [type(node).FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(copies)
    weights = [type(t).FromString(t.SerializeToString()) for t in graph.initializer if t.name in read]
    del graph.initializer[:]
    graph.initializer.extend(weights)


def _transposed(model: Any, name: str) -> str:
    """Append a transpose of a map with its channels last; the name of the new output."""
    import onnx

    planar = f"{name}.planar"
    model.graph.node.append(onnx.helper.make_node("Transpose", [name], [planar], planar, perm=[0, 3, 1, 2]))
    value = next(v for v in model.graph.output if v.name == name)
    dims = _dims(value)
    kind = value.type.tensor_type.elem_type
    value.CopyFrom(onnx.helper.make_tensor_value_info(planar, kind, ["N", dims[3], dims[1], dims[2]]))
    return planar


def _run(model: Any, source: Any, count: int, path: Path, outputs: Sequence[str] | None = None) -> list[NDArray[Any]]:
    """Outputs, or any tensors, for a batch of grey pictures; QanetError where the graph does not take such a batch."""
    import onnx
    import onnxruntime

    copy = type(model).FromString(model.SerializeToString())
    if outputs is not None:
        del copy.graph.output[:]
        copy.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in dict.fromkeys(outputs))
    dims = [count, *_dims(source)[1:]]
    kind = onnx.helper.tensor_dtype_to_np_dtype(source.type.tensor_type.elem_type)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = list(dict.fromkeys(outputs)) if outputs is not None else None
        grey = np.full(dims, 128 if kind == np.uint8 else 0.1, kind)
        found = session.run(names, {source.name: grey})
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        got = (str(error).strip().splitlines() or ["no message"])[-1][-200:]
        what = f"a batch of {count}" if count > 1 else "its own size"
        raise QanetError(f"{path} does not run with {what}", expected="a dynamic batch", got=got) from error
    if outputs is None:
        return list(found)
    by_name = dict(zip(names or (), found))
    return [by_name[name] for name in outputs]
