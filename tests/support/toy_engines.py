"""A toy network whose outputs tell which crop they came from, crops for it, and a bundle with its engine."""

import json
import threading

import numpy as np

from qanet import bundle as bundles

HEIGHT, WIDTH, PARTS = 8, 6, 3
KERNEL_TAIL, ALL_OUTPUTS = ("logits", "iou_scores"), ("logits", "iou_scores", "quality")
STATIC, DYNAMIC = [(1, 1), (2, 2), (4, 4), (8, 8)], [(1, 8)]
SHAPES = {"crops": (HEIGHT, WIDTH, 3), "box_scores": (), "logits": (PARTS, 2, 2), "iou_scores": (), "quality": ()}


def network(crops, box_scores):
    """What the made-up engine computes: each row's outputs tell which row they came from."""
    iou = crops[:, 0, 0, 0].astype(np.float32) / 255
    logits = crops.mean((1, 2, 3), dtype=np.float32)[:, None, None, None] + np.arange(PARTS)[None, :, None, None]
    return {
        "logits": np.broadcast_to(logits, (len(crops), PARTS, 2, 2)),
        "iou_scores": iou,
        "quality": None if box_scores is None else iou * box_scores,
    }


def make_bundle(folder, profiles=STATIC, outputs=KERNEL_TAIL, plan=None, half=(), fail=(), **entry):
    """A bundle with one engine, FP16 for sm_87 unless `entry` says otherwise."""
    inputs = ["crops", "box_scores"] if "quality" in outputs else ["crops"]
    spec = {"profiles": profiles, "inputs": inputs, "outputs": outputs, "half": half, "fail": fail}
    made = bundles.create(folder / "toy.qanet", labels="ccp13", input_hw=[HEIGHT, WIDTH])
    facts = {"runtime": "tensorrt", "version": "10.3.0", "precision": "fp16", "targets": ["sm_87"], "options": {}}
    facts |= {"inputs": inputs, "outputs": list(outputs)}
    made.add_engine("engines/toy.plan", json.dumps(spec).encode() if plan is None else plan, facts | entry)
    return made


def people(count):
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8), rng.random(count).astype(np.float32)


def assert_threads_take_turns(engine, counts):
    """Twenty threads run batches of these counts at once; each gets the rows of its own batch."""
    batches, got = [people(count) for count in counts] * 5, {}
    threads = [
        threading.Thread(target=lambda i=i: got.update({i: engine.run(*batches[i])})) for i in range(len(batches))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, batch in enumerate(batches):
        np.testing.assert_array_equal(got[index]["iou_scores"], network(*batch)["iou_scores"])
