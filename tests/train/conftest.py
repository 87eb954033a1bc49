"""Fixtures of the training tests: data sets drawn in code."""

import pytest
import torch
from drawn_people import write_silhouettes, write_small_ccp

# The networks of these tests are tiny: more threads would only wait for each other.
torch.set_num_threads(1)


@pytest.fixture
def small_ccp(tmp_path):
    """Six drawn people in the layout of CCP (`drawn_people.write_small_ccp`)."""
    return write_small_ccp(tmp_path / "ccp")


@pytest.fixture(scope="module")
def small_ccp_of_the_module(tmp_path_factory):
    """`small_ccp` for all tests of a file, which must not change it."""
    return write_small_ccp(tmp_path_factory.mktemp("data") / "ccp")


@pytest.fixture
def silhouettes(small_ccp, tmp_path):
    """Silhouettes of two of them (`drawn_people.write_silhouettes`)."""
    return write_silhouettes(tmp_path / "silhouettes", small_ccp)
