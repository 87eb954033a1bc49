"""How a run starts from weights that are there: which tensors are taken over, and which stages stay frozen."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from qanet.errors import QanetError
from qanet.train.networks.parser import ParsingNetwork
from qanet.train.weights.checkpoint import load_weights


def take_over(model: ParsingNetwork, checkpoint: Path) -> list[str]:
    """Copy what fits from a .safetensors checkpoint, whatever its classes; what does not keeps its random start.

    Returns:
        the names of the tensors that kept their random start, such as the classifier's of another label set.
    Raises:
        QanetError: a broken checkpoint, or one of another backbone.
    """
    source, recipe = load_weights(checkpoint)
    theirs: Mapping[str, Tensor] = source.state_dict()
    own = model.state_dict()
    fitting = {k: v for k, v in theirs.items() if k in own and own[k].shape == v.shape}
    if not any(key.startswith("backbone.") for key in fitting):
        raise QanetError(
            f"{checkpoint} is of another backbone", expected=type(model.backbone).__name__, got=recipe.name
        )
    model.load_state_dict({**own, **fitting})
    return sorted(set(own) - set(fitting))


def frozen_modules(model: ParsingNetwork, count: int) -> list[nn.Module]:
    """The first `count` stages of the backbone, stem first, without gradients. Keep them in eval mode while training:
    their batch-norm statistics stay too.

    Raises:
        QanetError: more stages than the backbone has.
    """
    stages = model.backbone.stages()
    if not 0 <= count <= len(stages):
        raise QanetError("bad frozen_stages", expected=f"0..{len(stages)}", got=count)
    for stage in stages[:count]:
        stage.requires_grad_(False)
    return stages[:count]
