"""The crops of all people of a frame on a GPU: the frame goes up once, one launch writes the batch."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qanet.errors import QanetError
from qanet.geometry import check_boxes
from qanet.runtime.cuda.gpu_context import DeviceArray, GpuContext, Launch, Tensor, shared_context

MAX_SAMPLES = 8  # per axis of a crop pixel where it shrinks: `geometry.subsamples`
_BLOCK = (32, 8, 1)


def crop_launch(
    image: DeviceArray, boxes: int, crops: DeviceArray, mirrored: int = 0, max_samples: int = MAX_SAMPLES
) -> Launch:
    """The launch of crop_people.

    Args:
        image: (H, W, 3) uint8, contiguous.
        boxes: address of (N, 4) float32 crop boxes.
        crops: (N, h, w, 3) uint8, what is written.
        mirrored: address of as many crops, written left to right reversed; 0 for none.
        max_samples: per axis of a crop pixel where it shrinks; 1 is plain bilinear.
    Raises:
        QanetError: too many people for a launch.
    """
    height, width, channels = image.shape
    count, crop_height, crop_width, _ = crops.shape
    arguments = (
        image.address,
        width * channels,
        height,
        width,
        boxes,
        crop_height,
        crop_width,
        max_samples,
        crops.address,
        mirrored,
    )
    grid = (-(-crop_width // _BLOCK[0]), -(-crop_height // _BLOCK[1]), count)
    return Launch("crop", "crop_people", "PqiiPiiiPP", arguments, grid, _BLOCK)


def queue_crops(
    gpu: GpuContext, crops: DeviceArray, image: NDArray[np.uint8], boxes: NDArray[np.float32], mirrored: int = 0
) -> None:
    """Queue the frame's way up and the launch that writes the crops.

    Args:
        gpu: on whose stream; what reads the crops is queued on its stream.
        crops: (N, h, w, 3) uint8 on the GPU.
        image: (H, W, 3) uint8.
        boxes: (N, 4) crop boxes (`geometry.crop_boxes`).
        mirrored: address for the mirrored crops, 0 for none.
    Raises:
        QanetError: arrays that do not fit, or CUDA failed.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise QanetError("the frame does not fit", expected="uint8 (H, W, 3)", got=f"{image.dtype} {image.shape}")
    where = check_boxes(boxes)
    if len(where) != crops.shape[0]:
        raise QanetError("boxes do not fit the crops", expected=(crops.shape[0], 4), got=where.shape)
    if len(where) == 0:
        return
    with (
        gpu.active(f"cropping {len(where)} people"),
        Tensor(gpu, "crop.frame", image.shape, np.uint8) as frame,
        Tensor(gpu, "crop.boxes", where.shape, np.float32) as crop_boxes,
    ):
        frame.upload(image)
        crop_boxes.upload(where)
        gpu.launch(crop_launch(frame.first(len(image)), crop_boxes.address, crops, mirrored))


def crop_people(
    image: NDArray[np.uint8], boxes: ArrayLike, crop_hw: tuple[int, int], index: int = 0
) -> NDArray[np.uint8]:
    """`qanet.geometry.crop_people` on a GPU, crops brought back: (N, h, w, 3) uint8, channels as in the image.

    Raises:
        QanetError: arrays that do not fit, no GPU, or CUDA failed.
    """
    where = check_boxes(boxes)
    shape = (len(where), *crop_hw, 3)
    if not len(where):
        return np.zeros(shape, np.uint8)
    gpu = shared_context(index)
    with gpu.active(f"cropping {len(where)} people"), Tensor(gpu, "crop.crops", shape, np.uint8) as crops:
        queue_crops(gpu, crops.first(len(where)), image, where)
        crops.download(len(where))
        gpu.stream.synchronize()
        return crops.rows(len(where))
