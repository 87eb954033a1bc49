"""`qanet build --low-memory`: a plan for each bucket, each verified by itself, and all of them found by the runtime."""

import json
import sys

import numpy as np
from engine_graphs import needs_rtx
from fake_tensorrt_builder import tensorrt_builder_module

from qanet.__main__ import main as qanet
from qanet.bundle import open_bundle
from qanet.export.backends import child, tensorrt, tensorrt_library
from qanet.export.building.command import main as build_main
from qanet.runtime.backends.tensorrt.choice import batches_of, choose_plans

KERNEL_TAIL = ("logits", "iou_scores")


@needs_rtx
def test_the_runtime_finds_every_plan_of_the_build_and_no_other(tiny_bundle):
    build = ["build", str(tiny_bundle), "--runtime", "tensorrt-rtx", "--precision", "fp32", "--target"]
    assert qanet([*build, "sm_86", "--low-memory", "--static-buckets"]) == 0
    assert qanet([*build, "sm_86,sm_120"]) == 0  # one plan with a range, for other GPUs too
    bundle = open_bundle(tiny_bundle)
    library, plans = choose_plans(bundle, "fp32", KERNEL_TAIL, "sm_86")
    assert library.__name__ == "tensorrt_rtx" and len(bundle.engines) == 4
    found = [batches_of(plan) for plan in plans]
    assert found in ([((1, 16),)], [((1, 1),), ((2, 2),), ((4, 4),)])  # whichever is first, never both
    assert [batches_of(plan) for plan in choose_plans(bundle, "fp32", None, "sm_120")[1]] == [((1, 16),)]


def test_each_plan_is_verified_with_no_more_crops_than_it_takes(tiny_bundle, tiny_graph, monkeypatch, capsys):
    import onnxruntime

    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_builder_module("10.3.0"))
    monkeypatch.setattr(tensorrt_library, "this_gpu", lambda: "sm_87")
    monkeypatch.setattr(tensorrt_library, "gpu_name", lambda: "Orin")
    monkeypatch.setattr(child, "build_apart", tensorrt.build)  # the made-up library is in no other process
    session = onnxruntime.InferenceSession(tiny_graph, providers=["CPUExecutionProvider"])
    verified = []

    class Engine:
        def run(self, crops, box_scores):
            verified.append(len(crops))
            results = session.run(list(KERNEL_TAIL), {"crops": crops, "box_scores": box_scores})
            return dict(zip(KERNEL_TAIL, (np.asarray(value) for value in results)))

        def close(self):
            verified.append("closed")

    def open_engine(bundle, device, precision, outputs):
        (plan,) = choose_plans(bundle, precision, outputs, "sm_87")[1]
        verified.append(plan["batches"])
        return Engine()

    arguments = ["--runtime", "tensorrt", "--precision", "fp32", "--low-memory", "--static-buckets", "--verify"]
    monkeypatch.setattr("qanet.export.building.engine.open_engine", open_engine)
    assert build_main([str(tiny_bundle), *arguments, "--no-timing-cache", "--json"]) == 0
    engines = json.loads(capsys.readouterr().out)["engines"]
    assert [e["batches"] for e in engines] == [[[1, 1, 1]], [[2, 2, 2]], [[4, 4, 4]]]
    assert verified == [[[1, 1, 1]], 1, "closed", [[2, 2, 2]], 2, "closed", [[4, 4, 4]], 2, "closed"]
    kept = open_bundle(tiny_bundle).engines
    assert all(entry["census"]["compute"] for entry in kept) and len({entry["graph_sha256"] for entry in kept}) == 1
