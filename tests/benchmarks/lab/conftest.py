"""Drawn people for the tools that make training data."""

import pytest


@pytest.fixture
def small_ccp(tmp_path):
    """Six drawn people in CCP's layout (`drawn_people.write_small_ccp`)."""
    from drawn_people import write_small_ccp

    return write_small_ccp(tmp_path / "ccp")


@pytest.fixture
def silhouettes(small_ccp, tmp_path):
    """Silhouettes of two of them (`drawn_people.write_silhouettes`)."""
    from drawn_people import write_silhouettes

    return write_silhouettes(tmp_path / "silhouettes", small_ccp)
