"""Images of every kind become BGR bytes; files that are no pictures are told apart in one line."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest

from qanet.errors import QanetError
from qanet.images import as_bgr, open_image, read_image
from qanet.picture_files import is_truncated

GREY = np.array([[0, 100, 255]], np.uint8)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (GREY, [[0, 0, 0], [100, 100, 100], [255, 255, 255]]),
        (GREY[..., None], [[0, 0, 0], [100, 100, 100], [255, 255, 255]]),
        (np.dstack([GREY, GREY * 0]), [[0, 0, 0], [100, 100, 100], [255, 255, 255]]),
        (np.array([[[1, 2, 3]]], np.uint8), [[1, 2, 3]]),
        (np.array([[[1, 2, 3, 0]]], np.uint8), [[1, 2, 3]]),
        (np.array([[0x00FF, 0xABCD]], np.uint16), [[0, 0, 0], [0xAB] * 3]),
        (np.array([[True, False]]), [[255] * 3, [0] * 3]),
        (np.array([[0.5, -0.2, 1.2]], np.float32), [[128] * 3, [0] * 3, [255] * 3]),
    ],
    ids=["grey", "one channel", "grey+alpha", "bgr", "bgra", "16 bit", "bool", "float"],
)
def test_every_kind_of_image_becomes_bgr_bytes(image, expected):
    bgr = as_bgr(image)
    assert bgr.dtype == np.uint8 and bgr.flags["C_CONTIGUOUS"] and bgr[0].tolist() == expected


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros(5, np.uint8), r"not an image .expected \(H, W\), or \(H, W, 1..4\), got \(5,\)"),
        (np.zeros((4, 4, 5), np.uint8), "not an image"),
        (np.zeros((0, 4, 3), np.uint8), "not an image"),
        (np.zeros((4, 4), np.int32), "got int32"),
        (None, "not an image"),
        (np.broadcast_to(np.uint8(0), (2, 40000, 3)), "too large .expected sides up to 32766 pixels"),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(QanetError, match=message):
        as_bgr(image)


@pytest.fixture
def picture():
    """(24, 40, 3): left blue, right red."""
    image = np.zeros((24, 40, 3), np.uint8)
    image[:, :20], image[:, 20:] = (255, 0, 0), (0, 0, 255)
    return image


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".jpg", ".webp"])
def test_a_picture_file_is_read(tmp_path, picture, suffix):
    cv2.imwrite(str(tmp_path / f"a{suffix}"), picture)
    assert np.abs(read_image(tmp_path / f"a{suffix}").astype(int) - picture)[:, 2:18].max() <= 3


@pytest.mark.parametrize(
    "image",
    [np.full((3, 4), 130, np.uint8), np.full((3, 4, 4), 130, np.uint8), np.full((3, 4, 3), 130 << 8, np.uint16)],
)
def test_grey_alpha_and_16_bit_files_are_read(tmp_path, image):
    cv2.imwrite(str(tmp_path / "a.png"), image)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.full((3, 4, 3), 130))


def test_a_photograph_is_turned_as_its_camera_says(tmp_path, picture):
    data = cv2.imencode(".jpg", picture)[1].tobytes()
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)  # orientation 6: turn to the right
    exif = b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff
    (tmp_path / "a.jpg").write_bytes(data[:2] + exif + data[2:])
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == (40, 24, 3) and image[2, 12, 0] > 200 and image[-2, 12, 2] > 200


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp"])
@pytest.mark.parametrize("kept", [0.5, 0.98])
def test_a_truncated_picture_is_refused_in_silence(tmp_path, picture, suffix, kept, capfd):
    data = cv2.imencode(suffix, np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))[1].tobytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(QanetError, match=f"cut{suffix} (is truncated|cannot be decoded)"):
        read_image(path)
    assert capfd.readouterr().err == ""


def test_a_jpeg_may_go_on_after_its_end_and_have_a_thumbnail_before_it(picture):
    data = cv2.imencode(".jpg", picture)[1].tobytes()
    thumbnail = b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data
    whole = data[:2] + thumbnail + data[2:]
    assert not is_truncated(whole) and not is_truncated(whole + bytes(100_000))  # phones append a video
    assert is_truncated(whole[:-2])


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a.png is empty .expected a picture, got 0 bytes"),
        (b"hello world", "a.png cannot be decoded .*11 bytes that start with b'hell'"),
        (
            b"\x89PNG\r\n\x1a\n"
            + _chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
            + _chunk(b"IDAT", zlib.compress(bytes(9)))
            + _chunk(b"IEND", b""),
            "a.png cannot be decoded",
        ),
        (None, "no file .*a.png"),
    ],
    ids=["empty", "text", "bomb", "missing"],
)
def test_a_file_that_is_no_picture_is_refused(tmp_path, data, message, capfd):
    path = tmp_path / "a.png"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(QanetError, match=message):
        read_image(path)
    assert capfd.readouterr().err == ""


def test_an_unreadable_file_is_a_clear_error(tmp_path, picture, monkeypatch):
    cv2.imwrite(str(tmp_path / "a.png"), picture)

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(QanetError, match="a.png cannot be read .got Permission denied"):
        read_image(tmp_path / "a.png")


class Tensor:
    """As much of a torch.Tensor as is asked for."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    cpu = detach

    def numpy(self):
        return self.array


BGR = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def test_every_kind_of_picture_is_the_same_frame(tmp_path):
    path = tmp_path / "p.png"
    cv2.imwrite(str(path), BGR)
    rgb = np.ascontiguousarray(BGR[:, :, ::-1])
    kinds = {
        "array": (BGR, "auto"),
        "RGB array": (rgb, "rgb"),
        "path": (path, "auto"),
        "name": (str(path), "auto"),
        "file": (path.open("rb"), "auto"),
        "bytes in memory": (io.BytesIO(path.read_bytes()), "auto"),
        "tensor (H, W, 3)": (Tensor(rgb), "auto"),
        "tensor (3, H, W)": (Tensor(rgb.transpose(2, 0, 1)), "auto"),
        "float tensor": (Tensor(rgb.transpose(2, 0, 1).astype(np.float32) / 255), "auto"),
        "BGR tensor": (Tensor(BGR), "bgr"),
    }
    for name, (picture, order) in kinds.items():
        frame = open_image(picture, order)
        assert np.array_equal(frame, BGR) and frame.flags.c_contiguous, name


def test_pil_images_are_turned_as_their_orientation_says():
    pillow = pytest.importorskip("PIL.Image", reason="Pillow's images are taken too")
    image = pillow.fromarray(BGR[:, :, ::-1])
    assert np.array_equal(open_image(image), BGR)
    buffer, exif = io.BytesIO(), image.getexif()
    exif[0x0112] = 6  # a quarter turn
    image.save(buffer, "png", exif=exif)
    buffer.seek(0)
    assert np.array_equal(open_image(pillow.open(buffer)), np.rot90(BGR, -1))
    assert open_image(image.convert("L")).shape == open_image(image.convert("P")).shape == (4, 6, 3)


@pytest.mark.parametrize("order", ["RGB", "", "grb"])
def test_an_unknown_order_is_an_error(order):
    with pytest.raises(QanetError, match="unknown order of channels .expected auto, bgr or rgb"):
        open_image(BGR, order)


def test_an_empty_file_object_is_an_error_that_names_it():
    with pytest.raises(QanetError, match="the file is empty"):
        open_image(io.BytesIO())
