"""A real TensorRT-RTX engine of the small graphs of the tests, straight through the library."""

import pytest


class RtxNetwork:
    """The strongly typed network (the library knows no other kind) of an ONNX file's bytes.

    A refusal fails the test with the parser's own words. The parser is kept: the network's weights are its memory.
    """

    def __init__(self, graph):
        self.library = trt = pytest.importorskip("tensorrt_rtx")
        self._logger = trt.Logger(trt.Logger.ERROR)
        self._builder = trt.Builder(self._logger)
        self.network = self._builder.create_network(0)
        self._parser = parser = trt.OnnxParser(self.network, self._logger)
        assert parser.parse(graph), [parser.get_error(i).desc() for i in range(parser.num_errors)]

    def build(self):
        """The serialised engine for sm_86 and 1 to 4 crops of 16x12 pixels; None where the builder gives none."""
        config = self._builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(self.library.ComputeCapability.SM86, 0)
        profile = self._builder.create_optimization_profile()
        profile.set_shape("crops", (1, 16, 12, 3), (2, 16, 12, 3), (4, 16, 12, 3))
        profile.set_shape("box_scores", (1,), (2,), (4,))
        config.add_optimization_profile(profile)
        return self._builder.build_serialized_network(self.network, config)
