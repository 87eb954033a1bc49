"""Kernels compiled by g++ once for all tests; they are skipped where there is no g++."""

import shutil
import sys

import pytest


@pytest.fixture(scope="session")
def emulated(tmp_path_factory):
    """Compiles a kernel file for the emulation, once: name -> Emulated."""
    if not shutil.which("g++") or not sys.platform.startswith("linux"):
        pytest.skip("the emulation needs g++ on Linux")
    from cuda_emulation.driver import Emulated

    compiled = {}

    def compile_once(name: str) -> Emulated:
        if name not in compiled:
            compiled[name] = Emulated(name, tmp_path_factory.mktemp(name))
        return compiled[name]

    return compile_once
