"""Stand-in weights: blocks that work, batch norms of these crops, label maps that vary, plausible IoU scores."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny_networks import register, tiny_recipe  # noqa: E402 (it needs torch)
from torch import nn  # noqa: E402

from qanet.benchmarks.lab.stand_in import main, stand_in  # noqa: E402
from qanet.errors import QanetError  # noqa: E402
from qanet.train.weights import load_weights  # noqa: E402


@pytest.fixture(autouse=True)
def tiny_backbones(monkeypatch):
    register(monkeypatch)
    torch.set_num_threads(1)


def people_of_colours(count=8):
    """Crops whose left half is dark and whose right half is bright, labelled 0 and 3."""
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 60, (count, 64, 96, 3), np.uint8)
    crops[:, :, 48:] += 180
    labels = np.zeros((count, 16, 24), np.int64)
    labels[:, :, 12:] = 3
    return torch.from_numpy(crops), torch.from_numpy(labels)


@pytest.mark.parametrize("backbone", ["tiny-basic", "tiny-c"])
def test_a_random_network_becomes_a_stand_in(backbone):
    crops, labels = people_of_colours()
    network = stand_in(tiny_recipe(backbone), crops, labels)
    assert not network.training
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and all(norm.weight.any() and norm.num_batches_tracked == 2 for norm in norms)
    with torch.no_grad():
        logits, iou = network(network.normalise(crops))
    shares = torch.bincount(logits.argmax(1).flatten(), minlength=13) / labels.numel()
    assert (logits.argmax(1) == labels).float().mean() > 0.8 and shares[0] > 0.3 < shares[3]
    assert iou.mean().item() == pytest.approx(0.7, abs=0.05) and (iou > 0).all() and iou.std() > 0


def test_the_same_seed_gives_the_same_weights():
    first, second = (stand_in(tiny_recipe("tiny-basic"), *people_of_colours()).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_command_writes_a_checkpoint_of_the_recipe(shared, tmp_path, monkeypatch):
    from qanet.benchmarks.lab import stand_in as module

    monkeypatch.setattr(module, "recipe", lambda name, settings: tiny_recipe("tiny-basic", name))
    arguments = ["some-recipe", "--data", str(shared / "data" / "ccp"), "--crops", "4"]
    assert main([*arguments, "--output", str(tmp_path / "w.safetensors")]) == 0
    network, chosen = load_weights(tmp_path / "w.safetensors")
    assert chosen.name == "some-recipe" and network.parsing_head.classify.weight.any()


@pytest.mark.parametrize(
    ("arguments", "message"), [(["ccp13-r18", "--crops", "3"], "bad --crops"), (["ccp13-r19"], "unknown recipe")]
)
def test_mistakes_are_errors(arguments, message, tmp_path):
    with pytest.raises(QanetError, match=message):
        main([*arguments, "--data", "nowhere", "--output", str(tmp_path / "w.safetensors")])
