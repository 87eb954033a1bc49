"""Quantisation-aware training: a few epochs in which the network computes as its INT8 graph does.

The INT8 graph of the bundle defines which tensors are quantised and with which scales. Its nodes are named after the
modules of the network (export/graphs/network.py), so each node is found while PyTorch runs: a convolution by its
weight, a sum, resize or pooling by the node that feeds it. Activations are rounded with the calibrated scales, weights
per output channel with the scale of their present values. Gradients pass straight through; clipped values have none.
Batch norms keep their statistics: folded into the convolution they only multiply a channel, and the scale per channel
follows.

The result is an ordinary checkpoint. Exported and given the same scales (`qanet calibrate NEW.qanet --scales
OLD.qanet/scales.json`) it gives the same Q/DQ graph with the trained weights.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from qanet.bundle import Bundle, open_bundle
from qanet.commandline import command_parser, emit, note, output_folder
from qanet.datasets import DATA_FORMATS, DataSet, open_dataset, splits_of
from qanet.errors import QanetError
from qanet.scratch import scratch_folder
from qanet.train.distributed import choose_device
from qanet.train.recipes import Recipe
from qanet.train.trainer import Trainer, TrainResult
from qanet.train.weights import load_weights

_SUFFIXES = {
    "hardtanh": "relu6",
    "relu": "relu",
    "relu_": "relu",
    "add": "sum",
    "__add__": "sum",
    "__iadd__": "sum",
    "add_": "sum",
    "interpolate": "up",
    "max_pool2d": "pool",
    "_max_pool2d": "pool",
    "avg_pool2d": "pool",
}
_SAME_NAME = ("batch_norm", "to", "float", "contiguous")  # folded into the convolution, or not a node of the graph
_CLASSIFIER = ("parsing_head.classify", "logits")  # module and node: the one convolution named after an output
_RATE = 0.05  # of the recipe's learning rate: the weights move by fractions of a quantisation step
EPOCHS = 3


@dataclasses.dataclass(frozen=True)
class NodeScales:
    """The quantised inputs of a node: input position -> scale of the activation; and whether its weight is INT8."""

    activations: dict[int, float]
    weight: bool


def read_scales(graph: bytes) -> dict[str, NodeScales]:
    """Node name -> scales, of a Q/DQ graph as `qanet calibrate` writes it.

    Raises:
        QanetError: no ONNX graph, or one without Q/DQ.
    """
    import onnx

    try:
        nodes = onnx.load_model_from_string(graph).graph
    except Exception as error:  # protobuf's own classes
        raise QanetError("the INT8 graph cannot be read", got=type(error).__name__) from error
    constants = {tensor.name: tensor for tensor in nodes.initializer}
    dequantised = {node.output[0]: node for node in nodes.node if node.op_type == "DequantizeLinear"}
    found = {}
    for node in nodes.node:
        activations, weight = {}, False
        for position, name in enumerate(node.input):
            pair = dequantised.get(name)
            if pair is not None and pair.input[0] in constants:
                weight = True
            elif pair is not None:
                activations[position] = float(onnx.numpy_helper.to_array(constants[pair.input[1]]))
        if activations or weight:
            found[node.name] = NodeScales(activations, weight)
    if not found:
        raise QanetError("the graph has no Q/DQ", next_command="qanet calibrate NAME.qanet --data DIR")
    return found


class FakeQuantisation(TorchFunctionMode):
    """While active, the operators of one network read the same rounded inputs as the nodes of its Q/DQ graph."""

    def __init__(self, model: nn.Module, scales: dict[str, NodeScales]):
        super().__init__()
        self._scales = scales
        convolutions = {name: m.weight for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
        self._convolutions = {id(weight): _node_name(name) for name, weight in convolutions.items()}
        self._taken: set[str] = set()

    def __enter__(self) -> "FakeQuantisation":
        self._taken = set()
        super().__enter__()
        return self

    def unseen(self) -> list[str]:
        """Quantised nodes that the last forward pass did not reach: the graph is of another network."""
        return [name for name in self._scales if name not in self._taken]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind = getattr(func, "__name__", "")
        if kind in _SAME_NAME:
            return _named(func(*args, **kwargs), getattr(args[0], "node_name", None))
        name = self._convolutions.get(id(args[1])) if kind == "conv2d" else _after(args, _SUFFIXES.get(kind))
        if name is None:
            return func(*args, **kwargs)
        name = self._unique(name)
        return _named(func(*self._quantised(name, args), **kwargs), name)

    def _unique(self, name: str) -> str:
        """The name that the exporter gives: the second node of a name becomes name_2."""
        number, plain = 1, name
        while name in self._taken:
            number += 1
            name = f"{plain}_{number}"
        self._taken.add(name)
        return name

    def _quantised(self, name: str, args: tuple[Any, ...]) -> list[Any]:
        scales = self._scales.get(name)
        if scales is None:
            return list(args)
        changed = list(args)
        for position, scale in scales.activations.items():
            changed[position] = fake_quantise(changed[position], scale)
        if scales.weight:
            changed[1] = fake_quantise_weight(changed[1])
        return changed


def fake_quantise(x: Tensor, scale: float) -> Tensor:
    """`x` rounded to INT8 steps of `scale` and saturated, as by QuantizeLinear and DequantizeLinear; same dtype."""
    return torch.fake_quantize_per_tensor_affine(x.float(), scale, 0, -128, 127).to(x.dtype)


def fake_quantise_weight(weight: Tensor) -> Tensor:
    """Rounded to 127 steps of each output channel's largest magnitude; (M, ...) of the same dtype."""
    with torch.no_grad():
        scale = (weight.float().abs().flatten(1).amax(1) / 127).clamp(min=1e-12)
        zero_point = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight.float(), scale, zero_point, 0, -127, 127).to(weight.dtype)


def _node_name(module: str) -> str:
    """The graph's name of a convolution module."""
    return _CLASSIFIER[1] if module == _CLASSIFIER[0] else module.removesuffix(".0")


def _after(args: tuple[Any, ...], suffix: str | None) -> str | None:
    """The name of a node: that of the node that feeds its first input, and a suffix."""
    first = getattr(args[0], "node_name", None) if args and suffix else None
    return f"{first}.{suffix}" if first else None


def _named(result: Any, name: str | None) -> Any:
    if isinstance(result, Tensor):
        result.node_name = name  # type: ignore[attr-defined]
    return result


def quantise_forward(model: nn.Module, scales: dict[str, NodeScales]) -> None:
    """Replace `model.forward` by one with fake quantisation; parameters and state dict stay as they are.

    The first call raises QanetError if the graph has quantised nodes that the model lacks.
    """
    forward, mode, checked = model.forward, FakeQuantisation(model, scales), False

    def quantised(x: Tensor) -> Any:
        nonlocal checked
        with mode:
            result = forward(x)
        if not checked and mode.unseen():
            raise QanetError(
                "the INT8 graph is of another network",
                expected="its quantised nodes among the network's",
                got=mode.unseen()[:4],
                next_command="qanet calibrate the bundle that was exported from this checkpoint",
            )
        checked = True
        return result

    model.forward = quantised


class QuantisedTrainer(Trainer):
    """The training loop with fake quantisation in the network and in its averaged copy."""

    def __init__(self, scales: dict[str, NodeScales], *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for model in (self.model, self.ema.model):
            quantise_forward(model, scales)
        self.frozen += [module for module in self.model.modules() if isinstance(module, nn.BatchNorm2d)]


def fine_tuning(recipe: Recipe, epochs: int, learning_rate: float | None = None) -> Recipe:
    """The recipe of a fine-tuning: few epochs, a small rate, all losses from the start.

    Args:
        learning_rate: None: 0.05 of the recipe's.
    """
    rate = recipe.learning_rate * _RATE if learning_rate is None else learning_rate
    return dataclasses.replace(
        recipe,
        epochs=epochs,
        learning_rate=rate,
        schedule="cosine",
        warmup_share=0.0,
        lovasz_from=0.0,
        pretrained=False,
        ema_decay=min(recipe.ema_decay, 0.99),
    )


def train_quantised(
    bundle: Bundle,
    train_data: DataSet,
    val_data: DataSet | None,
    folder: Path,
    device: torch.device,
    *,
    epochs: int = EPOCHS,
    learning_rate: float | None = None,
    workers: int = 2,
    report: Callable[[str], None] = print,
) -> TrainResult:
    """Fine-tune a calibrated bundle's network with its INT8 arithmetic; an interrupted run continues.

    Args:
        folder: of the run; the checkpoint is its model.safetensors.
        epochs, learning_rate: as for `fine_tuning`.
        workers: threads that load and augment.
        report: takes a line per epoch.
    Raises:
        QanetError: the bundle has no INT8 graph or no checkpoint, or they do not fit each other.
    """
    if epochs < 1:
        raise QanetError("bad --epochs", expected="1 or more", got=epochs)
    if "int8" not in bundle.manifest["graphs"]:
        raise QanetError(
            f"{bundle.path} has no INT8 graph",
            expected="a calibrated bundle",
            next_command=f"qanet calibrate {bundle.path} --data DIR",
        )
    scales = read_scales(bundle.graph("int8"))
    with scratch_folder() as temporary:
        weights = temporary / "model.safetensors"
        weights.write_bytes(bundle.read("model.safetensors"))
        recipe = fine_tuning(load_weights(weights)[1], epochs, learning_rate)
        trainer = QuantisedTrainer(
            scales, recipe, train_data, val_data, folder, device, workers=workers, initial_weights=weights
        )
    return trainer.run(report)


def quantisation_aware_training(
    model: str | Path,
    data: str | Path,
    output: str | Path | None = None,
    *,
    format: str | None = None,
    epochs: int = EPOCHS,
    learning_rate: float | None = None,
    device: str = "auto",
    workers: int = 2,
    report: Callable[[str], None] = print,
) -> TrainResult:
    """`train_quantised` for a bundle and a data set on disk: the function behind `qanet qat`.

    Args:
        model: a calibrated bundle, by name or path, with its checkpoint.
        data: folder of the data set.
        output: folder of the run; default runs/NAME-qat.
        format: layout of the data; default: that of the bundle's recipe.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
    Raises:
        QanetError: as `train_quantised`; no such bundle or device; data that is missing or broken.
    """
    bundle = open_bundle(str(model))
    layout = format or str(bundle.manifest["made"].get("recipe", {}).get("data_format", "ccp"))
    train_data = open_dataset(data, layout, bundle.labels, "train")
    val_data = open_dataset(data, layout, bundle.labels, "val") if "val" in splits_of(data, layout) else None
    return train_quantised(
        bundle,
        train_data,
        val_data,
        Path(output or f"runs/{bundle.name}-qat"),
        choose_device(device),
        epochs=epochs,
        learning_rate=learning_rate,
        workers=workers,
        report=report,
    )


def main(argv: Sequence[str]) -> int:
    """Entry point of `qanet qat`."""
    parser = command_parser("qat", "Fine-tune the network of a calibrated bundle with fake quantisation.")
    parser.add_argument("model", metavar="NAME.qanet", help="with scales.json, its INT8 graph and model.safetensors")
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of the data set")
    parser.add_argument("--format", choices=DATA_FORMATS, help="layout of the data; default: the recipe's")
    parser.add_argument("--epochs", type=int, default=EPOCHS, metavar="N", help=f"default {EPOCHS}")
    parser.add_argument("--learning-rate", type=float, metavar="R", help=f"default: {_RATE} of the recipe's")
    parser.add_argument("--output", type=output_folder, metavar="DIR", help="folder of the run; default: runs/NAME-qat")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="threads that load and augment (default 2)")
    args = parser.parse_args(argv)
    result = quantisation_aware_training(
        args.model,
        args.data,
        args.output,
        format=args.format,
        epochs=args.epochs,
        learning_rate=args.learning_rate,
        device=args.device,
        workers=args.workers,
        report=note,
    )
    bundle = open_bundle(args.model)
    new = f"{bundle.name}-qat.qanet"
    emit(
        args.json,
        {"weights": str(result.weights), "epochs": args.epochs},
        f"wrote {result.weights}\nnext: qanet export {result.weights} --output {new} && "
        f"qanet calibrate {new} --scales {bundle.path}/scales.json",
    )
    return 0
