"""The graph of the engine tests, written once in each precision."""

import pytest


@pytest.fixture(scope="session")
def graphs():
    """Precision -> contents of the ONNX file."""
    from engine_graphs import make_graph

    return {precision: make_graph(precision).SerializeToString() for precision in ("fp32", "fp16", "int8")}
