"""Damaged pictures end in pixels or in one line, soon: cut, flipped and overwritten bytes, and giant sizes in headers.

QANET_FUZZ sets the number of mutations; each is made from its own number, so that a failure can be repeated.
"""

import io
import os
import re
import subprocess
import sys
import textwrap
import time
import warnings

import numpy as np
import pytest

from qanet.errors import QanetError
from qanet.images import MAX_SIDE_PX, decode_image
from qanet.picture_files import HEAD_BYTES, count_pictures, picture_kind

Image = pytest.importorskip("PIL.Image", reason="Pillow writes the pictures")
COUNT = int(os.environ.get("QANET_FUZZ", 200))
HANG_S = 5.0
FORMATS = {
    "JPEG": {},
    "PNG": {},
    "WEBP": {},
    "TIFF": {"compression": "tiff_lzw"},
    "BMP": {},
    "GIF": {"save_all": True},
    "PPM": {},
    "JPEG2000": {},
    "AVIF": {},
    "TGA": {},
}


def seeds():
    """A small picture of each kind, as bytes."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    for format, options in FORMATS.items():
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format, **options)
        yield format, buffer.getvalue()


def mutated(data, rng):
    """The bytes of a picture, damaged in one to three ways."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        way, at = rng.integers(6), int(rng.integers(max(1, len(data))))
        head = int(rng.integers(min(len(data), HEAD_BYTES) or 1))
        if way == 0:
            del data[at:]
        elif way == 1:
            for place in rng.integers(0, max(1, len(data)), 8):
                data[place : place + 1] = bytes([rng.integers(256)]) if len(data) else b""
        elif way == 2:  # a header's field is huge
            data[head : head + 4] = rng.choice([b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\xff\xff", b"\xff\xff\0\0"])
        elif way == 3:  # or nothing
            data[head : head + 2] = b"\0\0"
        elif way == 4:
            data[at:at] = rng.bytes(int(rng.integers(1, 64)))
        else:
            del data[at : at + int(rng.integers(1, 32))]
    return bytes(data)


def judged(number, pictures):
    """What is wrong with the answer to a mutation; None if nothing is."""
    rng = np.random.default_rng(number)
    format, data = pictures[number % len(pictures)]
    data, start = mutated(data, rng), time.perf_counter()
    name = "a.tga" if format == "TGA" else "a"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = decode_image(data, name)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or max(image.shape) > MAX_SIDE_PX:
            return f"{format} {number}: {image.dtype} {image.shape}"
    except QanetError as error:
        if "\n" in error.line():
            return f"{format} {number}: two lines"
    except Exception as error:
        return f"{format} {number}: {type(error).__name__} {error}"
    count_pictures(data, picture_kind(data, ".tga"))
    elapsed_s = time.perf_counter() - start
    return f"{format} {number}: {elapsed_s:.1f} s" if elapsed_s > HANG_S else None


def test_damaged_pictures_end_in_pixels_or_one_line():
    """In a process of its own: a crash of a decoder is a failure of this test."""
    run = subprocess.run(
        [sys.executable, __file__, str(COUNT)], capture_output=True, text=True, timeout=60 + COUNT, env=os.environ
    )
    assert (run.returncode, run.stdout) == (0, f"{COUNT} mutations\n"), run.stderr[-2000:]
    assert run.stderr == ""  # libpng, libjpeg, libtiff and FFmpeg print nothing


GIANTS = {
    "PNG": (rb"IHDR........", b"IHDR" + (60_000).to_bytes(4, "big") * 2),
    "BMP": (rb"(?<=\x28\0\0\0)........", (60_000).to_bytes(4, "little") * 2),
    "JPEG": (rb"(?<=\xff\xc0\0\x11\x08)....", b"\xff\xfa\xff\xfa"),
    "PPM": (rb"32 24", b"60000 60000"),
    "TGA": (rb"(?s)(?<=\A.{12})....", b"\xff\xff\xff\xff"),
}


@pytest.mark.parametrize("format", GIANTS)
def test_a_giant_size_in_a_header_costs_no_memory(format):
    program = textwrap.dedent("""
        import resource, sys
        from qanet.errors import QanetError
        from qanet.images import decode_image
        name = sys.argv[1]
        import av, cv2
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            decode_image(sys.stdin.buffer.read(), name)
        except QanetError:
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000)
    """)
    what, by = GIANTS[format]
    data = re.sub(what, lambda found: by, dict(seeds())[format], count=1, flags=re.DOTALL)
    assert data != dict(seeds())[format]
    name = "a.tga" if format == "TGA" else "a"
    run = subprocess.run([sys.executable, "-c", program, name], input=data, capture_output=True, timeout=60)
    assert (run.stdout.strip(), run.stderr) == (b"True", b"")


if __name__ == "__main__":
    pictures = list(seeds())
    for number in range(int(sys.argv[1])):
        if wrong := judged(number, pictures):
            print(wrong, flush=True)
    print(f"{int(sys.argv[1])} mutations")
