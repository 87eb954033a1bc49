"""What the project's kernels do, by the NumPy reference, on the memory of the made-up GPU."""

from types import ModuleType

import numpy as np

from qanet import quality
from qanet.runtime.kernels import choose_kernels

SCORES = ("pixel_score_f32", "pixel_score_f16")
IMAGES = {"pixel_score": b"pixel_score_f32 pixel_score_f16 pixel_score_finish", "crop": b"crop_people"}
_ONE = 2**23  # the unit of the sums


def install(machine):
    """Give the machine the kernels; returns the module qanet.runtime.cuda.build that has their images."""
    for name in SCORES:
        dtype = np.float16 if name.endswith("16") else np.float32
        machine.kernels[name] = lambda machine, *arguments, dtype=dtype: _score(machine, dtype, *arguments)
    machine.kernels |= {"pixel_score_finish": _finish, "crop_people": _crop}
    machine.image_size = None  # the kernel is not told; a test that scores on an image says it here
    build = ModuleType("qanet.runtime.cuda.build")

    def kernel_image(name, target):
        assert target == "sm_87"
        machine.calls[f"image {name}"] += 1
        return IMAGES[name]

    build.kernel_image = kernel_image
    return build


def _score(
    machine,
    dtype,
    logits,
    flipped,
    classes,
    boxes,
    rois,
    offsets,
    num_classes,
    height,
    width,
    threshold,
    labels,
    sums,
    not_finite,
    pool_floats,
):
    count = machine.grid[1]
    shape = (count, num_classes, height, width)
    views = {}
    if flipped:
        swapped = machine.at(classes, np.int32, num_classes)
        pairs = [(a, int(b)) for a, b in enumerate(swapped) if a < b]
        mirrored = machine.at(flipped, dtype, shape).astype(np.float32)
        views = {"flipped_logits": mirrored, "flip_pairs": pairs}
    maps = machine.at(logits, dtype, shape).astype(np.float32)
    flags = machine.at(not_finite, np.uint32, count)
    if flags.any():
        machine.problems.append("the flags were not zero")
    views_of = [maps, *(values for name, values in views.items() if name == "flipped_logits")]
    for bit, values in enumerate(views_of):
        flags |= (~np.isfinite(values).all((1, 2, 3))).astype(np.uint32) << np.uint32(bit)
    if flags.any():
        return  # what the kernel makes of such logits means nothing
    found = quality.pixel_score(maps, machine.at(boxes, np.float32, (count, 4)), machine.image_size, threshold, **views)
    assert np.array_equal(found.rois, machine.at(rois, np.int32, (count, 4)))
    for region, start in zip(found.labels, machine.at(offsets, np.int64, count)):
        machine.at(labels + int(start), np.uint8, region.shape)[:] = region
    workspace = machine.at(sums, np.uint64, (count, 2, num_classes))
    if workspace.any():
        machine.problems.append("the sums were not zero")
    scores = np.concatenate([found.pixel_scores[:, None], found.part_scores], 1).astype(np.float64)
    workspace[:, 0] += np.round(scores * _ONE).astype(np.uint64)
    workspace[:, 1] += np.uint64(1)


def _finish(machine, sums, not_finite, num_classes, pixel_scores, part_scores, flags):
    count = machine.grid[0]
    seen = machine.at(not_finite, np.uint32, count)
    machine.at(flags, np.uint32, count)[:] = seen
    seen[:] = 0
    workspace = machine.at(sums, np.uint64, (count, 2, num_classes))
    scores = (workspace[:, 0] / (_ONE * np.maximum(workspace[:, 1], 1))).astype(np.float32)
    machine.at(pixel_scores, np.float32, count)[:] = scores[:, 0]
    machine.at(part_scores, np.float32, (count, num_classes - 1))[:] = scores[:, 1:]
    workspace[:] = 0


def _crop(machine, image, stride, height, width, boxes, crop_height, crop_width, max_samples, crops, mirrored):
    assert stride == width * 3 and max_samples == 8
    frame = machine.at(image, np.uint8, (height, width, 3))
    where = machine.at(boxes, np.float32, (machine.grid[2], 4))
    made = choose_kernels().crop_people(frame, where, (crop_height, crop_width))
    machine.at(crops, np.uint8, made.shape)[:] = made
    if mirrored:
        machine.at(mirrored, np.uint8, made.shape)[:] = made[:, :, ::-1]
