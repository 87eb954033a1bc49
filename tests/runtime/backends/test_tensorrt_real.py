"""TensorRT: the made-up library has the names of the real one, and a real GPU gives the right rows."""

import importlib.util

import numpy as np
import pytest
from toy_engines import HEIGHT, KERNEL_TAIL, WIDTH, make_bundle, people

from qanet.runtime.backends import select
from qanet.runtime.backends.tensorrt.engine import engine_from_bundle


@pytest.mark.skipif(not importlib.util.find_spec("tensorrt_rtx"), reason="tensorrt_rtx is not installed")
def test_every_name_that_is_called_exists_in_the_real_library():
    import tensorrt_rtx as trt

    engine = (
        "num_io_tensors get_tensor_name get_tensor_mode get_tensor_dtype get_tensor_shape "
        "num_optimization_profiles get_tensor_profile_shape create_execution_context"
    )
    context = "set_optimization_profile_async set_input_shape get_tensor_shape set_tensor_address execute_async_v3"
    context += " is_stream_capturable"  # of TensorRT-RTX alone
    names = {
        trt.ICudaEngine: engine,
        trt.IExecutionContext: context,
        trt.ILogger: "log",
        trt.TensorIOMode: "INPUT",
        trt.Runtime: "deserialize_cuda_engine engine_host_code_allowed",
        trt: "nptype __version__",
        trt.ExecutionContextAllocationStrategy: "ON_PROFILE_CHANGE",
    }
    missing = [
        f"{owner.__name__}.{name}" for owner in names for name in names[owner].split() if not hasattr(owner, name)
    ]
    assert missing == []


@pytest.mark.gpu
@pytest.mark.skipif(not select.has_cuda(), reason="needs an NVIDIA GPU with its driver, TensorRT and PyCUDA")
@pytest.mark.parametrize("static_buckets", [True, False])
def test_a_real_engine_on_a_real_gpu(tmp_path, static_buckets):
    pytest.importorskip("onnx", reason="the graph is made with onnx")
    from onnx import TensorProto, helper

    from qanet.export.backends import tensorrt
    from qanet.export.backends.tensorrt_options import Options
    from qanet.runtime.cuda.device import open_device

    nodes = [
        helper.make_node("Cast", ["crops"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["logits"], perm=[0, 3, 1, 2]),
        helper.make_node("ReduceMean", ["logits"], ["iou_scores"], axes=[1, 2, 3], keepdims=0),
    ]
    crops_info = helper.make_tensor_value_info("crops", TensorProto.UINT8, ["N", HEIGHT, WIDTH, 3])
    scores_info = helper.make_tensor_value_info("box_scores", TensorProto.FLOAT, ["N"])
    shapes = {"logits": ["N", 3, HEIGHT, WIDTH], "iou_scores": ["N"]}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "toy", [crops_info, scores_info], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    runtime = "tensorrt" if importlib.util.find_spec("tensorrt") else "tensorrt-rtx"
    targets = (open_device().target,)
    built = tensorrt.build(
        model.SerializeToString(),
        runtime=runtime,
        targets=targets,
        options=Options(static_buckets=static_buckets, max_batch=8),
        outputs=KERNEL_TAIL,
    )
    made = make_bundle(tmp_path, plan=built.data, runtime=runtime, version=built.version, targets=list(built.targets))
    with engine_from_bundle(made, "fp16", KERNEL_TAIL) as engine:
        for count in (1, 2, 3, 5, 11):
            crops, scores = people(count)
            got = engine.run(crops, scores)
            np.testing.assert_allclose(got["logits"], crops.transpose(0, 3, 1, 2), rtol=1e-5)
            np.testing.assert_allclose(got["iou_scores"], crops.mean((1, 2, 3)), rtol=1e-4)
        if static_buckets and runtime == "tensorrt" and importlib.util.find_spec("cuda"):
            assert engine.graph_batches == (4, 8)  # 3 and 11 = 8 + 3, 5 and 11: the buckets that ran twice
