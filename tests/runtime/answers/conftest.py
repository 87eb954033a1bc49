"""What the tests of known answers share."""

import pytest

from qanet.bundle import open_bundle
from qanet.runtime.answers.known import renew_answers
from qanet.runtime.answers.verdicts import TOLERANCES
from qanet.runtime.backends.onnxruntime import exact_outputs


@pytest.fixture
def answering(tiny_bundle):
    """The tiny bundle with known answers, saved and opened again."""
    bundle = open_bundle(tiny_bundle)
    renew_answers(bundle, {"fp32": bundle.graph("fp32")}, exact_outputs, TOLERANCES)
    bundle.save()
    return open_bundle(tiny_bundle)
