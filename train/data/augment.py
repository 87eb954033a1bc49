"""Augmentation: cuts, then scale, rotation, shift and flip in one resampling of the original pixels, then what stands
behind, beside and before the person, then colour and the camera's faults."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qanet.datasets import Sample
from qanet.geometry import crop_boxes, resample, resample_labels
from qanet.labels import LabelSet
from qanet.train.data.cut import cut
from qanet.train.data.scenery import Scenery, put_before, put_behind
from qanet.train.data.spoil import spoil
from qanet.train.recipe import Recipe


def random_affine(
    box: NDArray[np.float32], recipe: Recipe, rng: np.random.Generator
) -> tuple[NDArray[np.float64], bool]:
    """(2, 3) crop -> image affine of a jittered person box, and whether the crop is mirrored.

    Source: method, Losses and recipe: scale clip(1 + s N, range), rotation clip(r N, +-2r) with probability,
    flip with probability; one isotropic scale, unless the recipe stretches.
    """
    height, width = recipe.input_hw
    x0, y0, x1, y1 = crop_boxes(box, recipe.input_hw)[0].astype(np.float64)
    scale = np.clip(1 + recipe.scale_std * rng.standard_normal(), *recipe.scale_range) * (x1 - x0) / width
    spin = recipe.rotation_std_deg * rng.standard_normal()
    limit = 2 * recipe.rotation_std_deg
    angle = np.deg2rad(np.clip(spin, -limit, limit)) if rng.random() < recipe.rotation_probability else 0.0
    shift = recipe.shift_std * rng.standard_normal(2) * (x1 - x0, y1 - y0)
    flip = bool(rng.random() < recipe.flip_probability)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if recipe.aspect_std:
        stretch = np.exp(np.clip(recipe.aspect_std * rng.standard_normal(), -0.5, 0.5) / 2)
        linear *= (stretch, 1 / stretch)
    if flip:
        linear[:, 0] *= -1
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2]) + shift
    offset = centre - linear @ (width / 2, height / 2)
    return np.column_stack([linear, offset]), flip


def jitter_colours(crop: NDArray[np.uint8], strength: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Brightness, contrast and saturation, each a factor in 1 +- strength; (H, W, 3) uint8 in and out."""
    brightness, contrast, saturation = 1 + strength * rng.uniform(-1, 1, 3)
    pixels = crop.astype(np.float32)
    grey = pixels @ np.array([0.114, 0.587, 0.299], np.float32)  # BGR
    pixels = grey[..., None] + saturation * (pixels - grey[..., None])
    mean = float(grey.mean())
    pixels = (mean + contrast * (pixels - mean)) * brightness
    return np.clip(pixels, 0, 255).astype(np.uint8)


def add_bystander(
    crop: NDArray[np.uint8], target: NDArray[np.uint8], other: Sample, recipe: Recipe, rng: np.random.Generator
) -> None:
    """Paste the person of another sample beside the crop's own, in place, as background (method: other people's
    pixels are background). Half of the time they stand in front and hide a part, else behind."""
    height, width = recipe.input_hw
    affine, _ = random_affine(other.box, recipe, rng)
    aside = rng.choice((-1, 1)) * rng.uniform(0.25, 0.6) * width  # crop pixels
    affine[:, 2] -= affine[:, :2] @ (aside, rng.uniform(-0.1, 0.1) * height)
    pixels = resample(other.image, affine, recipe.input_hw)
    person = resample_labels((other.labels != 0).astype(np.uint8), affine, recipe.input_hw) != 0
    if rng.random() < 0.5:
        person &= target == 0
    crop[person] = pixels[person]
    target[person] = 0


@dataclass(frozen=True)
class Surroundings:
    """What a crop may be given beside its own person.

    Attributes:
        anybody: a random integer -> another sample, whose person may stand by.
        scenery: photographs without people; None: there are none.
        outlined: whether the person's outline is good enough for another background.
    """

    anybody: Callable[[int], Sample] | None = None
    scenery: Scenery | None = None
    outlined: bool = True


def training_crop(
    sample: Sample, recipe: Recipe, labels: LabelSet, rng: np.random.Generator, around: Surroundings | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An augmented crop (H, W, 3) uint8 BGR and its labels (H, W) uint8: classes, partial ids, IGNORE."""
    around = around or Surroundings()
    if recipe.cut_probability and rng.random() < recipe.cut_probability:
        sample = cut(sample, labels, rng)
    affine, flip = random_affine(sample.box, recipe, rng)
    crop = resample(sample.image, affine, recipe.input_hw)
    target = resample_labels(sample.labels, affine, recipe.input_hw)
    if flip and labels.flip_pairs:
        target = labels.flip_map[target]
    view = around.scenery.view if around.scenery and around.scenery.files else None
    if view and around.outlined and rng.random() < recipe.scenery_probability:
        inside = resample_labels(np.ones_like(sample.labels), affine, recipe.input_hw)
        crop = put_behind(crop, target, view(recipe.input_hw, rng), inside)
    if around.anybody and recipe.bystander_probability and rng.random() < recipe.bystander_probability:
        add_bystander(crop, target, around.anybody(int(rng.integers(2**31))), recipe, rng)
    if view and rng.random() < recipe.cover_probability:
        put_before(crop, target, view(recipe.input_hw, rng), rng)
    crop = jitter_colours(crop, recipe.colour_jitter, rng)
    if recipe.spoil_probability and rng.random() < recipe.spoil_probability:
        crop = spoil(crop, rng)
    return crop, target
