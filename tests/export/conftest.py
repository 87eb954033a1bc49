"""The graph of the engine tests, written once in each precision."""

import pytest


@pytest.fixture(scope="session")
def graphs(tmp_path_factory):
    """The path of the graph in each precision."""
    from engine_graphs import make_graph, onnx

    folder = tmp_path_factory.mktemp("graphs")
    paths = {precision: folder / f"{precision}.onnx" for precision in ("fp32", "fp16", "int8")}
    for precision, path in paths.items():
        onnx.save(make_graph(precision), path)
    return paths
