"""Augmentation of a person to a training crop.

In order: cut the photograph or the box within the person; scale, rotate, shift, stretch and flip in one resampling of
the original pixels; replace the background, add a bystander and an object in front; jitter colours; degrade the image
as cameras do.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qanet.datasets import Sample, person_box
from qanet.geometry import crop_boxes, resample, resample_labels
from qanet.labels import IGNORE, LabelSet
from qanet.train.data.people import BOTTOM, TOP
from qanet.train.data.scenery import Scenery, put_before, put_behind
from qanet.train.recipes import Recipe

_BORDER = 0.7  # share of cuts that end the photograph; the others end only the box
_WHOLE = 0.75  # share of a dress in view from which it keeps its label
_LEAST_SHARE = 0.04  # of the window that shows the person; below it the sample is not cut


def random_window(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 as shares of a person's box: the part that stays in view."""
    x0, y0, x1, y1 = 0.0, 0.0, 1.0, 1.0
    kind = rng.choice(5, p=(0.2, 0.3, 0.12, 0.18, 0.2))
    if kind == 0:  # head and shoulders
        y1 = rng.uniform(0.14, 0.38)
    elif kind == 1:  # to the waist, to the knees
        y1 = rng.uniform(0.35, 0.8)
    elif kind == 2:  # without the head
        y0 = rng.uniform(0.1, 0.65)
    if kind == 4:
        y1 = rng.uniform(0.25, 0.9)
    if kind >= 3:  # from one side
        kept = rng.uniform(0.35, 0.85)
        x0, x1 = (0.0, kept) if rng.random() < 0.5 else (1 - kept, 1.0)
    return x0, y0, x1, y1


def cut(sample: Sample, labels: LabelSet, rng: np.random.Generator) -> Sample:
    """The sample, cut at random; uncut if too little of the person would stay.

    Photographs of daily life cut people at every border, and a detector's box then holds the rest. A garment keeps its
    label only if enough of it is in view: a dress without its skirt may be a top.
    """
    share = random_window(rng)
    x0, y0, x1, y1 = sample.box.tolist()
    height, width = sample.labels.shape
    left, right = (x0 + s * (x1 - x0) for s in share[::2])
    top, bottom = (y0 + s * (y1 - y0) for s in share[1::2])
    rows = slice(max(0, int(top)) if share[1] > 0 else 0, min(height, int(bottom) + 1) if share[3] < 1 else height)
    columns = slice(max(0, int(left)) if share[0] > 0 else 0, min(width, int(right) + 1) if share[2] < 1 else width)
    seen = sample.labels[rows, columns]
    mine = (seen != 0) & (seen != IGNORE)
    if seen.size == 0 or mine.mean() < _LEAST_SHARE:
        return sample
    box = _visible_box(mine, sample.box, rows, columns)
    whole = _half_seen(sample.labels, (rows, columns), labels)
    if rng.random() < _BORDER:
        image = sample.image[rows, columns]
        return dataclasses.replace(sample, image=image, labels=whole[rows, columns], box=box)
    return dataclasses.replace(sample, labels=whole, box=box + np.array([columns.start, rows.start] * 2, np.float32))


def _visible_box(mine: NDArray[np.bool_], box: NDArray[np.float32], rows: slice, columns: slice) -> NDArray[np.float32]:
    """(4,) xyxy in the window: the box of the person's pixels in view, within the old box."""
    found = person_box(mine)
    old = box - np.array([columns.start, rows.start] * 2, np.float32)
    least, most = np.maximum(found[:2], old[:2]), np.minimum(found[2:], old[2:])
    return np.concatenate([least, most]) if (most > least + 4).all() else found


def _half_seen(labels: NDArray[np.uint8], window: tuple[slice, slice], classes: LabelSet) -> NDArray[np.uint8]:
    """Labels in which a dress that is mostly out of view has its partial label."""
    if "dress" not in classes.classes or "skirt" not in classes.classes:
        return labels
    dress = labels == classes.classes.index("dress")
    count = int(dress.sum())
    if not count or dress[window].sum() >= _WHOLE * count:
        return labels
    from_above = dress[: window[0].start].sum() < dress[window[0].stop :].sum()
    return np.where(dress, TOP if from_above else BOTTOM, labels).astype(np.uint8)


def spoil(crop: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Degrade a crop at random: exposure, colour, resolution, blur, noise, JPEG; (H, W, 3) uint8 BGR in and out."""
    import cv2

    if rng.random() < 0.6:
        crop = _exposure(crop, rng)
    if rng.random() < 0.08:
        crop = np.repeat(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)[..., None], 3, 2)
    if rng.random() < 0.55:
        crop = _fewer_pixels(crop, rng.uniform(0.15, 0.7), rng)
    if rng.random() < 0.2:
        crop = _blur(crop, rng)
    if rng.random() < 0.25:
        noise = rng.standard_normal(crop.shape[:2], np.float32)[..., None] * rng.uniform(2, 14)
        crop = np.clip(crop + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.45:
        quality = int(rng.integers(18, 80))
        crop = cv2.imdecode(cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    return crop


def _exposure(crop: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Gamma and gain, and a gain per channel, as one table of 256 levels per channel."""
    import cv2

    levels = np.linspace(0, 1, 256)[:, None]
    gains = np.exp(rng.normal(0, 0.1, 3)) * np.exp(rng.uniform(-0.55, 0.35))
    table = np.clip(levels ** np.exp(rng.normal(0, 0.3)) * gains, 0, 1)
    return cv2.LUT(crop, (table * 255 + 0.5).astype(np.uint8)[None])


def _fewer_pixels(crop: NDArray[np.uint8], share: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Shrunk and enlarged again, as a person who was small in the photograph."""
    import cv2

    height, width = crop.shape[:2]
    small = cv2.resize(crop, (max(8, int(width * share)), max(8, int(height * share))), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        quality = int(rng.integers(35, 90))
        small = cv2.imdecode(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def _blur(crop: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Out of focus, or motion along a line."""
    import cv2

    if rng.random() < 0.5:
        return cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.8, 3.0))
    length = int(rng.integers(3, 13))
    line = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    half = (length - 1) / 2
    for step in np.linspace(-half, half, 2 * length):
        line[round(half + step * np.sin(angle)), round(half + step * np.cos(angle))] = 1
    return cv2.filter2D(crop, -1, line / line.sum())


def random_affine(
    box: NDArray[np.float32], recipe: Recipe, rng: np.random.Generator
) -> tuple[NDArray[np.float64], bool]:
    """(2, 3) crop -> image affine of a jittered person box, and whether the crop is mirrored.

    Source: method, Losses and recipe: scale clip(1 + s N, range), rotation clip(r N, +-2r) with probability,
    flip with probability; one isotropic scale, unless the recipe sets aspect_std.
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
    """Brightness, contrast and saturation, each with a factor in 1 +- strength; (H, W, 3) uint8 BGR in and out."""
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
    """Paste the person of another sample into a crop and its labels, in place, as background.

    Source: method: the pixels of other people are background. With probability 0.5 the bystander stands behind the
    crop's person, else in front and hides a part.
    """
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
    """What the augmentation may add to a person.

    Attributes:
        bystander: a random integer -> another sample, whose person may be pasted; None: no bystanders.
        scenery: photographs without people; None: no scenery.
        outlined: whether the person's outline is exact enough to replace the background.
    """

    bystander: Callable[[int], Sample] | None = None
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
    if around.bystander and recipe.bystander_probability and rng.random() < recipe.bystander_probability:
        add_bystander(crop, target, around.bystander(int(rng.integers(2**31))), recipe, rng)
    if view and rng.random() < recipe.cover_probability:
        put_before(crop, target, view(recipe.input_hw, rng), rng)
    crop = jitter_colours(crop, recipe.colour_jitter, rng)
    if recipe.spoil_probability and rng.random() < recipe.spoil_probability:
        crop = spoil(crop, rng)
    return crop, target
