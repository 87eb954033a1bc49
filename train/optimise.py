"""Optimiser, learning-rate schedule, mixed precision and averaged weights, as a recipe sets them."""

import copy
import math
import time
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from qanet.errors import QanetError
from qanet.train.networks.parser import Network
from qanet.train.recipes import Recipe

# Share of a run with schedule "level" after which the rate falls. Until then the number of epochs has no effect, so a
# run may be resumed with another number.
LEVEL_UNTIL = 0.5
SomeNetwork = TypeVar("SomeNetwork", bound=Network)
AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW, or the Adam of the official recipe (whose weight decay its code never applied).

    Raises:
        QanetError: an unknown optimizer.
    """
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(_parameter_groups(model, recipe), lr=recipe.learning_rate)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(_parameter_groups(model, recipe, decay=0.0), lr=recipe.learning_rate)
    raise QanetError("unknown optimizer", expected="adamw or adam", got=recipe.optimizer)


def _parameter_groups(model: nn.Module, recipe: Recipe, decay: float | None = None) -> list[dict[str, Any]]:
    """Groups with the backbone at its own rate, and without weight decay on biases and norms."""
    groups: list[dict[str, Any]] = []
    for in_backbone in (True, False):
        for decayed in (True, False):
            chosen = [
                p
                for name, p in model.named_parameters()
                if name.startswith("backbone.") == in_backbone and (p.ndim > 1) == decayed and p.requires_grad
            ]
            if chosen:
                factor = recipe.backbone_lr_factor if in_backbone else 1.0
                weight = (recipe.weight_decay if decay is None else decay) if decayed else 0.0
                groups.append({"params": chosen, "lr": recipe.learning_rate * factor, "weight_decay": weight})
    return groups


def lr_factor(recipe: Recipe, step: int, total_steps: int) -> float:
    """The factor of the learning rate at a step (counted from 0): a linear warm-up, then the recipe's schedule.

    "cosine" falls to zero, "step" multiplies by 0.1 at each milestone, "level" stays until LEVEL_UNTIL of the steps and
    then falls linearly to zero.

    Raises:
        QanetError: an unknown schedule.
    """
    warmup = round(recipe.warmup_share * total_steps)
    if step < warmup:
        return (step + 1) / warmup
    if recipe.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total_steps - warmup)))
    if recipe.schedule == "level":
        return min(1.0, (total_steps - step) / max(1.0, (1 - LEVEL_UNTIL) * total_steps))
    if recipe.schedule == "step":
        return 0.1 ** sum(step >= round(share * total_steps) for share in recipe.milestones)
    raise QanetError("unknown schedule", expected="cosine, level or step", got=recipe.schedule)


_TIMED_CROPS = 4
_timed_s: dict[tuple[object, ...], dict[str, float]] = {}  # in this process, so that its runs choose alike


def timed_steps_s(model: Network, recipe: Recipe, device: torch.device) -> dict[str, float]:
    """Seconds of a forward and backward pass in each type that "auto" chooses from; the model stays as it is.

    A CPU without BF16 in hardware computes it slower than FP32, and what a list of instruction sets promises is not
    what the libraries use. FP16 is for GPUs without BF16.
    """
    wide = device.type == "cuda" and not torch.cuda.is_bf16_supported()
    key = (type(model), recipe.backbone, recipe.input_hw, recipe.width, device, torch.get_num_threads())
    if key not in _timed_s:
        copied = copy.deepcopy(model).train()
        crops = torch.zeros((min(_TIMED_CROPS, recipe.batch_size), *recipe.input_hw, 3), dtype=torch.uint8)
        x = copied.normalise(crops.to(device)).contiguous(memory_format=torch.channels_last)
        _timed_s[key] = {name: _step_s(copied, x, name) for name in ("off", "fp16" if wide else "bf16")}
    return _timed_s[key]


def _step_s(model: nn.Module, x: Tensor, name: str) -> float:
    """The faster of two passes after one that is not timed."""
    precision, least = MixedPrecision(name, x.device.type), math.inf
    for number in range(3):
        start = time.perf_counter()
        with precision.autocast():
            outputs = model(x)
        torch.stack([part.float().mean() for part in outputs if isinstance(part, Tensor)]).sum().backward()
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)
        least = min(least, time.perf_counter() - start) if number else least
    return least


class MixedPrecision:
    """Autocast for the forward pass and, for FP16, loss scaling for the backward pass."""

    def __init__(self, name: str, device_type: str):
        if name not in AMP_TYPES:
            raise QanetError("unknown amp", expected=f"auto or one of {', '.join(AMP_TYPES)}", got=name)
        self.device_type, self.dtype = device_type, AMP_TYPES[name]
        self.scaler = torch.amp.GradScaler(device_type, init_scale=4096.0, enabled=name == "fp16")

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        return torch.autocast(self.device_type, self.dtype or torch.bfloat16, enabled=self.dtype is not None)

    def step(self, loss: Tensor, model: nn.Module, optimizer: torch.optim.Optimizer, clip_norm: float) -> None:
        """Backward, clip, step. FP16 gradients that overflow skip the step and halve the scale."""
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if clip_norm > 0:
            self.scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        self.scaler.step(optimizer)
        self.scaler.update()


class Ema(Generic[SomeNetwork]):
    """Exponential moving average of weights and batch-norm statistics: smoother weights for evaluation.

    `model` is the averaged copy. In the first steps the decay is smaller, so that the average does not lag behind.
    """

    def __init__(self, model: SomeNetwork, decay: float):
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Average the model's present state in."""
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10))
        for mine, theirs in zip(self.model.state_dict().values(), model.state_dict().values()):
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)
