"""Somebody's segmentation network in front of QAM: how it takes its pictures, what its outputs are, and the module.

The networks that people have differ in a few things only, and `NetworkForm` holds them: the layout, the order and the
scale of the colours; the stride of the logits; whether there is a channel for the background; whether the outputs are
logits or probabilities already; whether there is an IoU head. What leaves `Adapter` are logits of the label set's
classes at a quarter of the input's size, which is what every tail takes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qanet.errors import QanetError
from qanet.export.graphs.network import ParsingGraph
from qanet.labels import LabelSet

GIVES = ("logits", "probabilities", "independent probabilities")
STRIDE = 4  # of the logits that the tails take
_LEAST_PROBABILITY = 1e-6
_NAMED = ("logits", "out", "seg_logits", "pred", "masks", "mask")  # HF; torchvision; mmseg; SMP with an auxiliary head


@dataclass(frozen=True)
class NetworkForm:
    """How a network takes pictures and gives logits.

    Attributes:
        input_hw: (H, W) pixels.
        mean, std: of each of its channels, in values 0..255: the input is (value - mean) / std.
        channels: of its output.
        logits_hw: (h, w) of its output.
        gives: one of GIVES.
        has_iou: whether it predicts an IoU beside.
    """

    input_hw: tuple[int, int]
    layout: str
    colours: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: int
    logits_hw: tuple[int, int]
    gives: str = "logits"
    has_iou: bool = False
    is_byte: bool = False  # the network takes uint8

    def adds_background(self, labels: LabelSet) -> bool:
        """Whether the label set has one class more than the network, the background; QanetError for other numbers."""
        if self.channels not in (labels.num_classes, labels.num_classes - 1):
            known = f"{labels.num_classes}, or {labels.num_classes - 1} without background"
            raise QanetError(
                f"the network's channels do not fit label set {labels.name}", expected=known, got=self.channels
            )
        return self.channels < labels.num_classes

    def lines(self, labels: LabelSet) -> list[str]:
        """What was recognised or given, for people to check."""
        (height, width), (h, w) = self.input_hw, self.logits_hw
        mean, std = (", ".join(f"{v:.4g}" for v in values) for values in (self.mean, self.std))
        background = "no channel for the background: it is where no class is above 0.5"
        kind = background if self.adds_background(labels) else f"{self.channels} classes, background among them"
        return [
            f"input: {height}x{width}, {self.layout}, {self.colours.upper()} of 0..255, mean {mean}, std {std}",
            f"output: {self.gives}, {h}x{w} (stride {height / h:g}), {kind}",
            "IoU head: " + ("yes" if self.has_iou else "none, so Q is made of box and pixel score"),
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain data for the manifest."""
        return asdict(self)


def scaled(
    mean: Sequence[float] | None, std: Sequence[float] | None, most: float | None
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and std in values 0..255.

    Args:
        most: the largest value of the pictures that mean and std are of: 1 or 255; None: 255 where one is above 1.
    Raises:
        QanetError: not three numbers each, or a std of 0.
    """
    if mean is None or std is None:
        raise QanetError(
            "the network file does not say how its pictures are normalised",
            expected="--mean R,G,B and --std R,G,B",
            got="neither" if mean is std else "one of them",
            next_command="--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 (ImageNet) or --mean 0,0,0 --std 1,1,1",
        )
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise QanetError("bad mean or std", expected="three numbers each, std above 0", got=(tuple(mean), tuple(std)))
    factor = 255 / (most or (255.0 if max(*mean, *std) > 1 else 1.0))
    m, s = (tuple(float(v) * factor for v in values) for values in (mean, std))
    return (m[0], m[1], m[2]), (s[0], s[1], s[2])


class Adapter(nn.Module):
    """A network's output (N, K, h, w) -> logits of the label set's classes (N, C, H/4, W/4)."""

    def __init__(self, form: NetworkForm, labels: LabelSet):
        super().__init__()
        self.gives, self.adds_background = form.gives, form.adds_background(labels)
        (height, width), (h, w) = form.input_hw, form.logits_hw
        self.size = (height // STRIDE, width // STRIDE)
        shrinks = h > self.size[0] and h % self.size[0] == 0 and w % self.size[1] == 0
        self.pooled = (h // self.size[0], w // self.size[1]) if shrinks else None
        self.is_resized = not shrinks and (h, w) != self.size

    def forward(self, raw: Tensor) -> Tensor:
        x = raw.float()
        if self.gives != "logits":
            x = x.clamp(_LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
            x = x.log() if self.gives == "probabilities" else x.log() - (1 - x).log()
        if self.adds_background:  # the softmax of (0, z) is above a half where the sigmoid of z is
            x = torch.cat([torch.zeros_like(x[:, :1]), x], 1)
        if self.pooled:
            return F.avg_pool2d(x, self.pooled, self.pooled)
        return F.interpolate(x, size=self.size, mode="bilinear", align_corners=False) if self.is_resized else x


class Normalise(nn.Module):
    """uint8 BGR crops (N, H, W, 3) -> the network's input."""

    mean: Tensor
    inverse_std: Tensor

    def __init__(self, form: NetworkForm):
        super().__init__()
        self.form = form
        self.register_buffer("mean", torch.tensor(form.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("inverse_std", 1 / torch.tensor(form.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, crops: Tensor) -> Tensor:
        if self.form.is_byte:
            x = crops.flip(3) if self.form.colours == "rgb" else crops
            return x if self.form.layout == "NHWC" else x.permute(0, 3, 1, 2)
        x = crops.float().permute(0, 3, 1, 2)  # cast first: TensorRT cannot transpose UINT8
        x = (x.flip(1) if self.form.colours == "rgb" else x) - self.mean
        x = x * self.inverse_std
        return x.permute(0, 2, 3, 1) if self.form.layout == "NHWC" else x


class Tail(ParsingGraph):
    """A network's raw output and box scores -> the outputs of a parsing graph."""

    def __init__(self, form: NetworkForm, labels: LabelSet, weights: tuple[float, float, float]):
        super().__init__(nn.Identity(), weights=weights)  # type: ignore[arg-type]
        self.adapter = Adapter(form, labels)

    def forward(self, raw_logits: Tensor, box_scores: Tensor) -> tuple[Tensor, ...]:
        return self.outputs(self.adapter(raw_logits), raw_logits.new_ones(raw_logits.shape[0]), box_scores)


class TailWithIou(Tail):
    """As `Tail`, of a network with an IoU head, (N,) or (N, 1)."""

    def forward(self, raw_logits: Tensor, raw_iou: Tensor, box_scores: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return self.outputs(self.adapter(raw_logits), raw_iou.reshape(-1).float(), box_scores)


class WrappedModule(nn.Module):
    """A torch module with its normalisation, adapter and QAM: a parsing graph."""

    def __init__(self, module: nn.Module, form: NetworkForm, labels: LabelSet, weights: tuple[float, float, float]):
        super().__init__()
        self.network, self.normalise = module, Normalise(form)
        self.tail: Tail = (TailWithIou if form.has_iou else Tail)(form, labels, weights)
        self.threshold = self.tail.threshold
        self._has_iou = form.has_iou

    def forward(self, crops: Tensor, box_scores: Tensor) -> tuple[Tensor, ...]:
        logits, iou = outputs_of(self.network(self.normalise(crops)))
        return self.tail(logits, iou, box_scores) if self._has_iou else self.tail(logits, box_scores)


def outputs_of(output: Any) -> tuple[Tensor, Tensor | None]:
    """The logits (N, K, h, w) and, where there is one, the IoU (N,) or (N, 1) in a module's output.

    Forms: a tensor; a dict with "out" (torchvision); an object with `logits` (Hugging Face); a tuple or list whose
    first map is the logits (SMP with an auxiliary head, mmseg).

    Raises:
        QanetError: none of them.
    """
    parts = _parts(output)
    maps = [part for part in parts if isinstance(part, Tensor) and part.ndim == 4]
    if not maps:
        got = type(output).__name__ + (f" of {list(output)}" if isinstance(output, Mapping) else "")
        raise QanetError("the module gives no logits", expected="a tensor (N, classes, h, w), alone or first", got=got)
    # By rank alone: a look at the number of pictures would fix it in the graph.
    scores = [p for p in parts if isinstance(p, Tensor) and (p.ndim == 1 or (p.ndim == 2 and p.shape[1] == 1))]
    return maps[0], scores[0] if scores else None


def _parts(output: Any) -> list[Any]:
    if isinstance(output, Mapping):
        first = [output[name] for name in _NAMED if name in output]
        return [*first, *output.values()]
    if isinstance(output, (tuple, list)) and not hasattr(output, "logits"):
        return list(output)
    named = [getattr(output, name) for name in _NAMED if hasattr(output, name) and not isinstance(output, Tensor)]
    return named or [output]


def known_normalisation(module: nn.Module) -> tuple[Sequence[float], Sequence[float]] | tuple[None, None]:
    """Mean and std that a module says of itself, in values 0..1: timm's and SMP's `pretrained_cfg`."""
    for holder in (module, getattr(module, "encoder", None), getattr(module, "backbone", None)):
        config = getattr(holder, "pretrained_cfg", None) or getattr(holder, "default_cfg", None)
        if isinstance(config, Mapping) and {"mean", "std"} <= config.keys():
            return tuple(config["mean"]), tuple(config["std"])
    return None, None


def form_of_module(
    module: nn.Module,
    input_hw: tuple[int, int],
    layout: str,
    colours: str,
    normalisation: tuple[tuple[float, float, float], tuple[float, float, float]],
) -> NetworkForm:
    """The form of a module, by running it once on a grey picture."""
    probe = NetworkForm(input_hw, layout, colours, *normalisation, channels=1, logits_hw=(1, 1))
    grey = torch.full((2, *input_hw, 3), 128, dtype=torch.uint8)
    with torch.inference_mode():
        logits, iou = outputs_of(module.eval()(Normalise(probe)(grey)))
    channels, height, width = logits.shape[1:]
    return NetworkForm(
        input_hw, layout, colours, *normalisation, channels, (height, width), gives_of(logits), iou is not None
    )


def gives_of(output: Tensor) -> str:
    """Whether an output is logits or probabilities, by its values."""
    if float(output.min()) < 0 or float(output.max()) > 1:
        return GIVES[0]
    return GIVES[1] if bool(((output.sum(1) - 1).abs() < 1e-3).all()) and output.shape[1] > 1 else GIVES[2]
