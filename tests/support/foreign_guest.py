"""Runs on a foreign machine: what the project's engines answer there. See `ask` of foreign_machine.py.

    foreign_guest.py RUNTIME HINT FOLDER GRAPH ...

HINT is what OpenVINO's floating point computes in; "any" leaves the choice to the project. FOLDER holds crops.npy and
GRAPH.onnx; answers.npz and told.json are written into it.
"""

import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

_PRODUCTS = ("Convolution", "MatMul", "FullyConnected")


def main(runtime: str, hint: str, folder: Path, graphs: list[str]) -> None:
    """Answer every graph, in order."""
    crops = np.load(folder / "crops.npy")
    scores = np.ones(len(crops), np.float32)
    outputs, kinds, seconds, floating_point = {}, {}, {}, ""
    for name in graphs:
        begin = time.perf_counter()
        engine = _open(runtime, (folder / f"{name}.onnx").read_bytes(), name.split("-")[0], hint)
        outputs[name] = engine.run(crops, scores)["logits"]
        seconds[name] = time.perf_counter() - begin
        if runtime == "openvino":
            kinds[name], floating_point = _kinds(engine.compiled), engine.floating_point
    np.savez(folder / "answers.npz", **outputs)
    told = {"kinds": kinds, "floating_point": floating_point, "seconds": seconds, **_device(runtime)}
    (folder / "told.json").write_text(json.dumps(told))


def _open(runtime, graph, precision, hint):
    if runtime == "openvino":
        from qanet.runtime.backends import openvino

        chosen = None if hint == "any" else hint
        return openvino.engine_from_graph(graph, precision, ("logits",), threads=1, hint=chosen)
    from qanet.runtime.backends import onnxruntime

    return onnxruntime.engine_from_graph(graph, precision, ("logits",), threads=1)


def _device(runtime):
    if runtime != "openvino":
        return {"capabilities": [], "device": ""}
    from qanet.runtime.backends.openvino import openvino_core

    names = {"capabilities": "OPTIMIZATION_CAPABILITIES", "device": "FULL_DEVICE_NAME"}
    return {key: openvino_core().get_property("CPU", name) for key, name in names.items()}


def _kinds(compiled):
    """Kernel and type of every product, such as jit_avx2_I8:u8, with how many there are."""
    told = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    words = [[str(i[key].astype(str)) for key in ("layerType", "primitiveType", "runtimePrecision")] for i in told]
    return dict(Counter(f"{kernel}:{kind}" for layer, kernel, kind in words if layer in _PRODUCTS))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
