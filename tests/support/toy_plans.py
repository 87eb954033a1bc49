"""The toy network as a build for little memory makes it: a plan for each bucket, all in one bundle."""

import json

from fake_tensorrt import FakeContext
from toy_engines import KERNEL_TAIL, make_bundle

BUCKETS = (1, 2, 4)


def plan_file(batch):
    return f"engines/toy.b{batch}.plan"


def spec_of(batch, outputs=KERNEL_TAIL, **spec):
    """The bytes of a made-up plan that takes one batch."""
    inputs = ["crops", "box_scores"] if "quality" in outputs else ["crops"]
    return json.dumps({"profiles": [(batch, batch)], "inputs": inputs, "outputs": outputs, **spec}).encode()


def make_bundle_apart(folder, buckets=BUCKETS, outputs=KERNEL_TAIL, specs=None, **entry):
    """A bundle with a plan for each bucket; `specs`: batch -> what its plan says beside the usual."""
    made = make_bundle(folder, outputs=outputs, **entry)
    (facts,) = made.manifest["engines"]
    made.manifest |= {"engines": [], "files": {}, "pixel_score_threshold": 0.2, "qam_weights": [1, 0.5, 3]}
    made._staged.clear()
    for batch in buckets:
        batches = {"batches": [[batch, batch, batch]]}
        made.add_engine(plan_file(batch), spec_of(batch, outputs, **(specs or {}).get(batch, {})), facts | batches)
    return made


def watch_runs(monkeypatch):
    """A list that grows by (bucket of the plan, crops) with each execution that is queued by TensorRT."""
    runs, execute = [], FakeContext.execute_async_v3

    def watched(context, handle):
        runs.append((context.engine.spec["profiles"][0][1], context.shapes["crops"][0]))
        return execute(context, handle)

    monkeypatch.setattr(FakeContext, "execute_async_v3", watched)
    return runs
