"""Which tensors of an FP32 graph get Q/DQ, which blocks its convolutions form, and the reading of that graph.

Q/DQ pairs are symmetric S8S8 and stand where TensorRT fuses them, and nowhere else:

- Every convolution whose weight is a constant and that covers more than one pixel: its data input per tensor, its
  weight per output channel. Its bias stays float (TensorRT refuses a quantised one).
- Both inputs of an addition of two activations (residuals, the sums of the neck) that a quantised convolution reads.
- Before a Resize, MaxPool or AveragePool whose output is quantised: the pair is repeated in front of it with the same
  range, so that the resize reads and writes one byte a value.
- Before a Concat whose output is quantised: all its inputs and its output share one range, the widest, so that it
  copies bytes.
- Never between a convolution and its ReLU or Clip: Q/DQ goes in front of a consumer and those are not consumers.

Float by rule: normalisation and the tail (no convolution follows the logits), Gemm, and convolutions over one pixel
(the IoU head after its pooling: matrix-vector products that cost nothing and decide a score).
Float by choice: nodes whose name matches a pattern of `keep`; see DEFAULT_KEEP. An addition is quantised only if a
quantised convolution depends on it, so the sums of the neck stay float when the heads do.

What it buys, measured: with both inputs of the residual additions quantised OpenVINO runs convolution, sum and
requantisation as one INT8 node; with neither it inserts nine FakeQuantize and as many reorders.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from qanet.errors import QanetError


def load_model(graph: bytes, name: str = "model.onnx") -> Any:
    """Parse and check an ONNX graph.

    Args:
        graph: contents of an ONNX file.
        name: of the graph, for errors.
    Returns:
        onnx.ModelProto with inferred shapes in value_info.
    Raises:
        QanetError: not ONNX, or a graph that the ONNX checker refuses.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(graph)
        onnx.checker.check_model(model, full_check=True)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)
    except Exception as error:  # protobuf, the checker and shape inference each have their own classes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise QanetError(
            f"broken ONNX file {name}",
            expected="a valid ONNX graph",
            got=reason,
            next_command="qanet export CHECKPOINT",
        ) from error


@dataclass(frozen=True)
class GraphView:
    """Look-ups over a graph: initialisers by name, the node that makes a tensor, the shapes of tensors.

    Nodes are known by their index in `graph.node`, which every graph has; names may be empty or shared.
    """

    graph: Any
    initialisers: dict[str, Any]
    producer: dict[str, int]
    shapes: dict[str, tuple[int | None, ...]]

    @classmethod
    def of(cls, graph: Any) -> "GraphView":
        """Index an onnx.GraphProto; shapes come from its value_info, None for dynamic axes."""
        producer: dict[str, int] = {}
        for index, node in enumerate(graph.node):
            for name in node.output:
                producer[name] = index
        shapes = {}
        for value in (*graph.value_info, *graph.input, *graph.output):
            if value.type.tensor_type.HasField("shape"):
                dims = value.type.tensor_type.shape.dim
                shapes[value.name] = tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)
        return cls(graph, {t.name: t for t in graph.initializer}, producer, shapes)

    def upstream(self, tensors: Iterable[str]) -> set[int]:
        """Indices of all nodes that some of these tensors depend on."""
        seen: set[int] = set()
        stack = list(tensors)
        while stack:
            index = self.producer.get(stack.pop())
            if index is not None and index not in seen:
                seen.add(index)
                stack.extend(self.graph.node[index].input)
        return seen

    def tensors(self) -> set[str]:
        """Names of every activation: the graph's inputs and the outputs of its nodes."""
        return {value.name for value in self.graph.input} - set(self.initialisers) | set(self.producer)


# Measured on an early checkpoint of the 13-class CCP network (EfficientNet-Lite0, 384x288, 100 crops to calibrate by
# entropy, 40 others to judge): labels equal to FP32's are 99.54% with everything in INT8, 99.56% with the two heads in
# float and 99.69% with the first convolution too. That one reads three channels of colour, is 2% of the multiply-adds
# and costs no time in float: OpenVINO saves the pass that quantises the input. Worst change of a quality score: 0.006,
# 0.007 and 0.003.
DEFAULT_KEEP: tuple[str, ...] = ("backbone.stem", "logits", "iou_head.*", "heads.*.predict")
_PASS_THROUGH = ("Resize", "MaxPool", "AveragePool")  # none widens the range of what passes


@dataclass(frozen=True)
class Placement:
    """Where Q/DQ goes. Nodes are indices into graph.node, inputs are positions in node.input.

    Attributes:
        convolutions: indices of the convolutions that run in INT8.
        readers: quantised activation -> the (node, input) pairs that read it through Q/DQ; in graph order.
        range_of: quantised activation -> the activations of whose ranges it takes the widest: itself alone, but for
            tensors that pass through a resize, a pooling or a concatenation.
    """

    convolutions: tuple[int, ...]
    readers: dict[str, tuple[tuple[int, int], ...]]
    range_of: dict[str, tuple[str, ...]]

    def observed(self) -> list[str]:
        """Activations whose range calibration must find, in graph order."""
        return list(dict.fromkeys(donor for name in self.readers for donor in self.range_of[name]))


def place(model: Any, keep: tuple[str, ...] = DEFAULT_KEEP) -> Placement:
    """Decide the placement for an onnx.ModelProto (with value_info, as `load_model` returns it).

    Args:
        keep: shell patterns of node names to leave in float.
    Raises:
        QanetError: a pattern that matches no node, or nothing left to quantise.
    """
    view = GraphView.of(model.graph)
    _check_patterns(view, keep)
    convolutions = [
        i for i, node in enumerate(view.graph.node) if _is_quantisable(view, node) and not _kept(node, keep)
    ]
    if not convolutions:
        raise QanetError(
            "no convolution is left to quantise",
            expected="at least one Conv with a constant float32 weight",
            got=f"keep = {list(keep)}",
            next_command="keep fewer nodes in float",
        )
    wanted = {(i, 0) for i in convolutions}
    feeding = view.upstream(view.graph.node[i].input[0] for i in convolutions)
    for index in feeding:
        node = view.graph.node[index]
        if node.op_type == "Add" and not _kept(node, keep) and all(n in view.producer for n in node.input):
            wanted |= {(index, 0), (index, 1)}
    groups = _pass_through(view, wanted, keep)
    order = {name: number for number, name in enumerate(n for node in view.graph.node for n in node.output)}
    readers: dict[str, list[tuple[int, int]]] = {}
    for index, position in sorted(wanted):
        readers.setdefault(view.graph.node[index].input[position], []).append((index, position))
    names = sorted(readers, key=lambda name: order.get(name, -1))  # a graph input comes first
    range_of = {n: tuple(sorted(groups.get(n, (n,)), key=lambda name: order.get(name, -1))) for n in names}
    return Placement(tuple(convolutions), {n: tuple(readers[n]) for n in names}, range_of)


def _pass_through(view: GraphView, wanted: set[tuple[int, int]], keep: tuple[str, ...]) -> dict[str, set[str]]:
    """Quantise the inputs of nodes that a quantised activation passed through unchanged.

    Extends `wanted`; returns tensor -> the tensors, made by something else, that share one range with it.
    """
    group: dict[str, set[str]] = {}  # tensor -> all tensors of its range; one set object a group
    copies: set[str] = set()
    stack = [view.graph.node[index].input[position] for index, position in sorted(wanted)]
    while stack:
        name = stack.pop()
        index = view.producer.get(name)
        if index is None or name in copies:
            continue
        node = view.graph.node[index]
        sources = _passed(view, node)
        if not sources or (node.op_type == "Concat" and _kept(node, keep)):
            continue
        copies.add(name)
        merged = set().union({name}, *(group.get(n, {n}) for n in (name, *sources)))
        group |= dict.fromkeys(merged, merged)
        wanted |= {(index, position) for position in range(len(sources))}
        stack += sources
    return {name: members - copies for name, members in group.items()}


def _passed(view: GraphView, node: Any) -> list[str]:
    """The activations that a node copies or resizes without widening their range; empty for other nodes."""
    if node.op_type in _PASS_THROUGH:
        return [node.input[0]]
    if node.op_type == "Concat" and all(name in view.producer for name in node.input):
        return list(node.input)
    return []


def _is_quantisable(view: GraphView, node: Any) -> bool:
    """A convolution with a constant float32 weight over a map of more than one pixel."""
    import onnx

    if node.op_type != "Conv":
        return False
    weight = view.initialisers.get(node.input[1])
    if weight is None or weight.data_type != onnx.TensorProto.FLOAT:
        return False
    spatial = view.shapes.get(node.input[0], ())[2:]
    return not spatial or any(size != 1 for size in spatial)


def _kept(node: Any, keep: tuple[str, ...]) -> bool:
    return any(fnmatchcase(node.name, pattern) for pattern in keep)


def _check_patterns(view: GraphView, keep: tuple[str, ...]) -> None:
    """A pattern that matches nothing is a typing error, unless it is one of the defaults on a graph without it."""
    for pattern in keep:
        if pattern not in DEFAULT_KEEP and not any(fnmatchcase(node.name, pattern) for node in view.graph.node):
            raise QanetError(
                f"no node matches the pattern {pattern!r}",
                expected="names such as backbone.stem or neck.*",
                got=[node.name for node in view.graph.node if node.op_type == "Conv"][:6],
            )


def block_of(name: str) -> str:
    """The block of a node, by its name: `backbone.blocks.3.expand.relu6` is in `backbone.blocks.3`.

    Up to the first part that is a number; of names without one the first two parts.
    """
    parts = name.split(".")
    number = next((position for position, part in enumerate(parts) if part.isdigit()), 1)
    return ".".join(parts[: number + 1])


def blocks_of(model: Any) -> tuple[str, ...]:
    """Blocks with a convolution that may be quantised, in graph order."""
    nodes = model.graph.node
    return tuple(dict.fromkeys(block_of(nodes[index].name) for index in place(model, ()).convolutions))


def present_patterns(model: Any, blocks: Iterable[str]) -> tuple[str, ...]:
    """Patterns of `Scales.keep` that leave these blocks in float: those that match a node of the graph."""
    names = [node.name for node in model.graph.node]
    return tuple(
        pattern
        for block in blocks
        for pattern in (block, f"{block}.*")
        if (pattern in names if pattern == block else any(name.startswith(f"{block}.") for name in names))
    )
