"""A bundle whose INT8 graph leaves a product in floating point, and what an engine of it computes in."""

from engine_graphs import HEIGHT, WIDTH, make_graph

from qanet.bundle import create

KERNEL_TAIL = ("logits", "iou_scores")


def make_int8_bundle(folder):
    """int8.qanet with an FP32 and a Q/DQ graph of three convolutions and a Gemm, which stays float; saved."""
    bundle = create(folder / "int8.qanet", labels="ccp13", input_hw=[HEIGHT, WIDTH], graphs={})
    for precision, file in (("fp32", "model.onnx"), ("int8", "model.int8.onnx")):
        bundle.add_file(file, make_graph(precision).SerializeToString(deterministic=True))
        bundle.manifest["graphs"][precision] = file
    bundle.save()
    return bundle.path


def product_types(engine):
    """OpenVINO's words for what the products of an open engine run in."""
    kinds = ("Convolution", "MatMul", "FullyConnected")
    told = [node.get_rt_info() for node in engine.compiled.get_runtime_model().get_ordered_ops()]
    return {str(i["runtimePrecision"].astype(str)) for i in told if str(i["layerType"].astype(str)) in kinds}
