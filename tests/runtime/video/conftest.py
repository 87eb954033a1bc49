"""What the tests of videos share: a parser of whole images, and a count of frames."""

import cv2
import pytest

from qanet.runtime.detectors.base import WholeImage
from qanet.runtime.parser import Parser


@pytest.fixture
def parser(tiny_parser):
    """A parser of its own times that takes the whole image for one person."""
    return Parser(tiny_parser.bundle, tiny_parser.engine, "kernel", WholeImage())


@pytest.fixture(scope="session")
def count_frames():
    """Path of a video -> how many of its frames can be decoded."""

    def count(path) -> int:
        capture, frames = cv2.VideoCapture(str(path)), 0
        while capture.grab():
            frames += 1
        return frames

    return count
