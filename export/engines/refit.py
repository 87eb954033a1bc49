"""Puts the weights of an ONNX graph into a plan that was built without them."""

from pathlib import Path

from qanet.errors import QanetError
from qanet.export.engines.builder_log import BuilderLog
from qanet.export.engines.source_graph import load_graph
from qanet.export.engines.tensorrt_library import load_library

_NAMES_SHOWN = 5


def refit(plan: bytes, onnx_path: str | Path, outputs: tuple[str, ...] | None) -> bytes:
    """Return the whole plan.

    Args:
        plan: built with `strip_weights` for this GPU by this version of TensorRT.
        onnx_path: the graph it was built from.
        outputs: those it was built with.
    Raises:
        QanetError: TensorRT is missing, refuses the plan, or the graph has not all its weights.
    """
    trt = load_library("tensorrt")
    model = load_graph(onnx_path, outputs)
    name, log = Path(onnx_path).name, BuilderLog()
    logger = log.logger(trt)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise QanetError("TensorRT refuses the engine without weights", got=log.last_errors())
    refitter = trt.Refitter(engine, logger)
    parser_refitter = trt.OnnxParserRefitter(refitter, logger)
    if not parser_refitter.refit_from_bytes(model.SerializeToString()):
        raise QanetError(f"the weights of {name} do not fit the engine", got=log.last_errors())
    missing = refitter.get_missing_weights()
    if missing:
        shown = ", ".join(missing[:_NAMES_SHOWN])
        raise QanetError(f"{name} lacks weights of the engine", expected=f"{len(missing)} more", got=f"no {shown}")
    if not refitter.refit_cuda_engine():
        raise QanetError("TensorRT could not refit the engine", got=log.last_errors())
    serialization = engine.create_serialization_config()
    serialization.clear_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS)
    whole = engine.serialize_with_config(serialization)
    if whole is None:
        raise QanetError("TensorRT could not write the refitted engine", got=log.last_errors())
    return bytes(whole)
