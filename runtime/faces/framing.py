"""How a face lies in the frame: as in CelebAMask-HQ, whose pictures are aligned and shown whole to the network.

The numbers are medians over 267 of its pictures: the box around skin, eyes, nose, mouth and ears, as a share of the
picture's side (the 10th and the 90th percentiles of its height are 0.65 and 0.82).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

FACE_HEIGHT = 0.742
FACE_WIDTH = 0.602
FACE_TOP = 0.188  # from the picture's upper edge
HAIR_TOP = 0.03
HEAD_WIDTH = 0.859  # with the hair
MIN_SIDE_PX = 16  # of a frame: the face in it is 10 pixels wide, and nothing is left of an eye


def frame_of_face(face: ArrayLike) -> NDArray[np.float32]:
    """The square to parse around a face.

    Args:
        face: (4,) xyxy pixels, hairline to chin and ear to ear, as face detectors give it; a face in profile is
            narrower, so the longer of the two sides decides.
    Returns:
        (4,) float32 xyxy; may reach outside the image.
    """
    x0, y0, x1, y1 = np.asarray(face, np.float64)
    side = max((y1 - y0) / FACE_HEIGHT, (x1 - x0) / FACE_WIDTH)
    middle = (y0 + y1) / 2 + side * (0.5 - FACE_TOP - FACE_HEIGHT / 2)
    return _square((x0 + x1) / 2, middle, side)


def frame_of_head(top: float, collar: float, face_x: float, across: tuple[float, float]) -> NDArray[np.float32]:
    """The square to parse around a head.

    In those pictures the hair begins just below the upper edge, the lower edge cuts the neck, and the head is inside.

    Args:
        top, collar: rows of the hair's top and of the neck's end.
        face_x: column of the middle of the face.
        across: columns where hair and face begin and end.
    Returns:
        (4,) float32 xyxy; may reach outside the image.
    """
    side = max((collar - top) / (1 - HAIR_TOP), (across[1] - across[0]) / HEAD_WIDTH)
    centre_x = min(max(face_x, across[1] - side / 2), across[0] + side / 2)
    return _square(centre_x, top + side * (0.5 - HAIR_TOP), side)


def guess_frames(boxes: ArrayLike) -> NDArray[np.float32]:
    """Where the heads are if people stand upright and look out of the middle of the upper edge of their boxes.

    A head is 2/15 of a person's height; where only a head and shoulders are in the box, half of its width.

    Args:
        boxes: (N, 4) xyxy pixels of people.
    Returns:
        (N, 4) float32 squares.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    side = np.maximum(height * (2 / 15), np.minimum(width / 2, height / 3)) / (FACE_TOP + FACE_HEIGHT - HAIR_TOP)
    centre = np.stack([boxes[:, [0, 2]].mean(1), boxes[:, 1] + side * (0.5 - HAIR_TOP)], 1)
    return np.concatenate([centre - side[:, None] / 2, centre + side[:, None] / 2], 1).astype(np.float32)


def _square(x: float, y: float, side: float) -> NDArray[np.float32]:
    half = side / 2
    return np.array([x - half, y - half, x + half, y + half], np.float32)
