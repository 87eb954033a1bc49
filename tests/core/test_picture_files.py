"""Picture files of every kind are read as Pillow reads them, or refused in one line; nothing depends on the suffix."""

import io
import os
import subprocess
import sys
import threading
import warnings

import cv2
import numpy as np
import pytest

from qanet.errors import QanetError, QanetWarning
from qanet.images import decode_image, read_image
from qanet.picture_files import PICTURE_SUFFIXES, count_pictures, natural_key, picture_kind, pictures_of
from qanet.quiet import diverted_stderr

Image = pytest.importorskip("PIL.Image", reason="Pillow writes the pictures and is the judge of them")
ImageOps = pytest.importorskip("PIL.ImageOps")

Y, X = np.mgrid[:48, :64]
RGB = np.dstack([X * 4, Y * 5, X + Y]).astype(np.uint8)
COLOURS = Image.fromarray(RGB)
GREY = COLOURS.convert("L")


def written(image, format, **options):
    """The bytes of a picture file, by Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def bgr(image):
    """What Pillow sees, (H, W, 3) int BGR."""
    return np.asarray(image.convert("RGB"))[:, :, ::-1].astype(int)


def read(data, name="a"):
    """A picture without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", QanetWarning)
        return decode_image(data, name).astype(int)


DEEP = Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257)
KINDS = {
    "PNG": (COLOURS, GREY, GREY.convert("1"), GREY.convert("LA"), COLOURS.convert("P"), COLOURS.convert("RGBA"), DEEP),
    "JPEG": (COLOURS, GREY, COLOURS.convert("CMYK"), COLOURS.convert("YCbCr")),
    "WEBP": (COLOURS, COLOURS.convert("RGBA")),
    "TIFF": (COLOURS, GREY, GREY.convert("LA"), COLOURS.convert("P"), COLOURS.convert("CMYK"), DEEP),
    "BMP": (COLOURS, GREY, COLOURS.convert("P"), COLOURS.convert("RGBA")),
    "GIF": (GREY, COLOURS.convert("P")),
    "PPM": (COLOURS, GREY, GREY.convert("1"), DEEP),
    "JPEG2000": (COLOURS, GREY, COLOURS.convert("RGBA"), DEEP),
    "AVIF": (COLOURS, COLOURS.convert("RGBA")),
    "TGA": (COLOURS, GREY, COLOURS.convert("P"), COLOURS.convert("RGBA")),
}


@pytest.mark.parametrize(
    ("format", "image"),
    [(f, i) for f, images in KINDS.items() for i in images],
    ids=lambda value: getattr(value, "mode", value),
)
def test_each_kind_and_mode_is_read_as_pillow_reads_it(format, image):
    name = "a.tga" if format == "TGA" else "no-suffix"  # TGA alone has no mark of its own
    expected = bgr(GREY if image is DEEP else image)
    assert np.abs(read(written(image, format), name) - expected).mean() <= 2  # chroma is interpolated in another way


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_each_kind_is_turned_as_the_camera_says(format, orientation):
    exif = COLOURS.getexif()
    exif[0x0112] = orientation
    data = written(COLOURS, format, **({"tiffinfo": {0x0112: orientation}} if format == "TIFF" else {"exif": exif}))
    expected = bgr(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    got = read(data)
    assert got.shape == expected.shape and np.abs(got - expected).mean() <= 1.5


@pytest.mark.parametrize("white", [1, 15, 100, 255, 1023, 65535])
@pytest.mark.parametrize("magic", [b"P5", b"P2", b"P6", b"P3", b"P7"])
def test_a_pnm_is_read_by_its_own_white(magic, white):
    levels = [0, white // 2, white]
    channels = 3 if magic in b"P3P6" else 1
    values = [level for level in levels for _ in range(channels)]
    if magic in (b"P2", b"P3"):
        body = " ".join(map(str, values)).encode()
    else:
        body = np.array(values).astype(">u2" if white > 255 else np.uint8).tobytes()
    head = b"%s\n# a comment\n3 1\n%d\n" % (magic, white)
    if magic == b"P7":
        head = b"P7\nWIDTH 3\nHEIGHT 1\nDEPTH 1\nMAXVAL %d\nTUPLTYPE GRAYSCALE\nENDHDR\n" % white
    if magic == b"P7" and white == 1:
        with pytest.raises(QanetError, match="cannot be decoded"):
            read(head + body)
        return
    assert np.abs(read(head + body)[0, :, 0] - np.array(levels) * 255 / white).max() <= 1


@pytest.mark.parametrize("depth", [8, 10, 12])
def test_a_deep_avif_is_as_bright_as_a_plain_one(depth):
    pixels = RGB if depth == 8 else RGB.astype(np.uint16) << (depth - 8)
    made, data = cv2.imencode(".avif", pixels, [cv2.IMWRITE_AVIF_DEPTH, depth])
    assert made and np.abs(read(data.tobytes()) - RGB).mean() < 2


@pytest.mark.parametrize("channels", [1, 3])
def test_a_float_tiff_is_read_within_one_and_refused_beyond(channels):
    for values, white in ((np.float32(0.5), 128), (np.float32(90), None)):
        image = np.full((4, 5, channels), values, np.float32)
        data = cv2.imencode(".tiff", image)[1].tobytes()
        if white:
            assert (read(data) == white).all()
        else:
            with pytest.raises(QanetError, match="a: an image of floats has another range .*90"):
                read(data)


def several(format):
    """Three pictures in one file."""
    others = [COLOURS.transpose(Image.Transpose.FLIP_TOP_BOTTOM), COLOURS.rotate(180)]
    if format == "JPEG":
        return b"".join(written(image, format) for image in (COLOURS, *others))
    return written(COLOURS, format, save_all=True, append_images=others)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF", "JPEG"])
def test_a_file_of_several_pictures_says_that_one_was_read(format):
    with pytest.warns(QanetWarning, match="a holds (3|several) pictures, the first was read"):
        image = decode_image(several(format), "a")
    assert np.abs(image.astype(int) - bgr(COLOURS)).mean() < 4  # the palette of a GIF


@pytest.mark.parametrize("cut", [1, 2])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_without_its_last_two_bytes_is_read_and_said(cut, options):
    data = written(COLOURS, "JPEG", **options)
    with pytest.warns(QanetWarning, match="a lacks its last bytes; its pixels are complete"):
        image = decode_image(data[:-cut], "a")
    assert np.array_equal(image, read(data))


@pytest.mark.parametrize("cut", [1, 6, 12])
def test_a_png_without_its_end_is_read_and_said(cut):
    data = written(COLOURS, "PNG")
    with pytest.warns(QanetWarning, match="a lacks its last bytes"):
        image = decode_image(data[:-cut], "a")
    assert np.array_equal(image, read(data))


@pytest.mark.parametrize("format", [f for f in KINDS if f != "TGA"])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_half_a_picture_is_never_read_in_silence(format, kept, capfd):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    data = written(noise, format)
    with pytest.raises(QanetError) as error:
        read(data[: int(len(data) * kept)])
    assert "\n" not in str(error.value) and capfd.readouterr().err == ""


def test_a_damaged_jpeg_is_read_and_said_without_a_line_of_libjpeg(capfd):
    data = bytearray(written(Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)), "JPEG"))
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    with pytest.warns(QanetWarning, match="a is damaged and was read as far as possible: Corrupt JPEG data"):
        decode_image(bytes(data), "a")
    assert capfd.readouterr().err == ""


def test_other_lines_reach_stderr_while_pictures_are_decoded():
    program = """
import os, subprocess, sys
from qanet.quiet import diverted_stderr
with diverted_stderr() as lines:
    os.write(2, b"libpng warning: iCCP: known incorrect sRGB profile\\nof somebody else\\n")
    print("of Python", file=sys.stderr)
    if os.fork() == 0:
        os.write(2, b"of a child\\n"); os._exit(0)
    os.wait()
print(lines)
os.write(2, b"afterwards\\n")
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ)
    assert run.stdout == "['libpng warning: iCCP: known incorrect sRGB profile']\n"
    assert sorted(run.stderr.split("\n")) == ["", "afterwards", "of Python", "of a child", "of somebody else"]


def test_threads_share_the_diversion(capfd):
    def work():
        for _ in range(200):
            with diverted_stderr():
                os.write(2, b"libpng error: x\n")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"end\n")
    assert capfd.readouterr().err == "end\n"


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (HEIC, "a.jpg cannot be decoded .*got a HEIC picture.; next: convert it: heif-convert a.jpg a.jpg"),
        (
            b"8BPS\0\1" + bytes(60),
            "a.jpg cannot be decoded .expected a JPEG, PNG, .*got 66 bytes that start with b'8BPS'",
        ),
        (b"%PDF-1.4 hello", "a.jpg cannot be decoded"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.jpg cannot be decoded"),
        (written(COLOURS, "TIFF", tiffinfo={254: 1}), "a.jpg begins with a thumbnail .*got a raw photograph"),
    ],
    ids=["HEIC", "PSD", "PDF", "SVG", "raw"],
)
def test_other_kinds_are_refused_by_name(data, message):
    with pytest.raises(QanetError, match=message):
        decode_image(data, "a.jpg")


def test_what_is_a_picture_is_told_by_content():
    formats = {"GIF": "gif", "PPM": "pnm", "JPEG2000": "jp2"}
    for format in KINDS:
        kind = formats.get(format, format.lower())
        assert picture_kind(written(COLOURS, format), ".tga" if format == "TGA" else "") == kind
        assert count_pictures(written(COLOURS, format), kind) == 1
    assert picture_kind(HEIC) == "heic"
    videos = (
        b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41",
        b"\x1aE\xdf\xa3",
        b"RIFF\0\0\0\0AVI LIST",
        b"BMW",
        b"P2P",
        b"",
    )
    assert [picture_kind(data) for data in videos] == [None] * len(videos)
    assert {".jfif", ".jp2", ".ppm", ".tga", ".gif", ".avif", ".heic"} <= PICTURE_SUFFIXES


def test_pages_in_a_circle_end():
    data = bytearray(several("TIFF"))
    first = int.from_bytes(data[4:8], "little")
    after = first + 2 + 12 * int.from_bytes(data[first : first + 2], "little")
    data[after : after + 4] = first.to_bytes(4, "little")
    assert count_pictures(bytes(data), "tiff") == 1


@pytest.mark.parametrize(
    "names",
    [
        ["frame2", "frame10"],
        ["a", "a1", "a01b", "a2", "b"],
        ["1.png", "2.png", "10.png", "a.png"],
        ["x" + "9" * 240, "x²", "x٣"],
    ],
)
def test_names_are_in_the_order_of_people(names):
    backwards = list(reversed(names))
    backwards.sort(key=natural_key)
    assert backwards == names


def test_a_folder_is_sorted_into_pictures_and_others(tmp_path):
    for name in ("frame10.png", "frame9.png", "photo", "empty.jpg", "notes.txt", "film.mp4", ".hidden.png"):
        (tmp_path / name).write_bytes(written(COLOURS, "JPEG") if name == "photo" else b"")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    pictures, others = pictures_of(tmp_path)
    assert [path.name for path in pictures] == ["empty.jpg", "frame9.png", "frame10.png", "photo"]
    assert [path.name for path in others] == ["film.mp4", "folder.png", "notes.txt", "pipe.png"]


def test_a_name_that_is_not_utf8_is_read_and_told(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    path.write_bytes(written(COLOURS, "PNG"))
    assert np.array_equal(read_image(path), bgr(COLOURS))
    path.write_bytes(b"x")
    with pytest.raises(QanetError) as error:
        read_image(path)
    assert "caf\\xe9.png cannot be decoded" in str(error.value)
