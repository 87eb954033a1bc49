"""Graphs that ship with their weights in FP16: half the bytes, and still FP32 graphs that every runtime reads.

A weight is stored in FP16 and cast to FP32 by a node of the graph; runtimes fold that when they load it. What writes
other graphs from it (calibration, typed graphs) wants plain FP32 weights, so a bundle hands those out.
"""

from typing import Any

import numpy as np

from qanet.errors import QanetError

_LEAST = 256  # values; smaller constants stay as they are
_ENDING = ".fp16"


def with_half_weights(data: bytes) -> bytes:
    """An ONNX graph with its float32 weights rounded to FP16 and cast back by nodes; deterministic.

    Raises:
        QanetError: a weight that FP16 cannot hold.
    """
    import onnx

    model = onnx.load_model_from_string(data)
    casts: list[Any] = []
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if tensor.data_type != onnx.TensorProto.FLOAT or values.size < _LEAST:
            continue
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if not np.isfinite(halves).all():
            raise QanetError(f"{tensor.name} overflows FP16", expected="up to 65504", got=float(np.abs(values).max()))
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(halves, name + _ENDING))
        casts.append(onnx.helper.make_node("Cast", [name + _ENDING], [name], f"{name}.cast", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return _bytes(model)


def with_float_weights(data: bytes) -> bytes:
    """The same graph with float32 weights and without those casts; deterministic."""
    import onnx

    model = onnx.load_model_from_string(data)
    halves = {t.name: t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16}
    kept = []
    for node in model.graph.node:
        tensor = halves.get(node.input[0]) if node.op_type == "Cast" and node.input else None
        if tensor is None:
            kept.append(node)
            continue
        values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return _bytes(model)


def _bytes(model: Any) -> bytes:
    serialised: bytes = model.SerializeToString(deterministic=True)
    return serialised
