"""TensorRT: batches of every size, from several threads, give their own rows and nothing more."""

import threading
import time

import numpy as np
import pytest
from toy_engines import (
    ALL_OUTPUTS,
    DYNAMIC,
    HEIGHT,
    KERNEL_TAIL,
    STATIC,
    WIDTH,
    assert_threads_take_turns,
    make_bundle,
    network,
    people,
)

from qanet.errors import QanetError
from qanet.runtime.backends.tensorrt.engine import engine_from_bundle


@pytest.mark.parametrize(
    "profiles", [STATIC, STATIC[::-1], DYNAMIC, [(4, 4)]], ids=["buckets", "reversed", "dynamic", "4"]
)
@pytest.mark.parametrize("outputs", [KERNEL_TAIL, ALL_OUTPUTS], ids=["kernel", "graph"])
def test_every_batch_gives_its_own_rows(machine, tmp_path, profiles, outputs):
    with engine_from_bundle(make_bundle(tmp_path, profiles, outputs, half=["logits"]), "fp16", outputs) as engine:
        kept = []
        for count in (1, 2, 3, 5, 1, 8, 11, 3):  # 11 is split; what is kept must outlive the next call
            crops, scores = people(count)
            kept.append((engine.run(crops, scores), network(crops, scores)))
    for got, expected in kept:
        assert tuple(got) == outputs
        for name in outputs:
            assert got[name].dtype == np.float32 and got[name].flags.owndata and got[name].flags.writeable
            np.testing.assert_allclose(got[name], expected[name], rtol=1e-3 if name == "logits" else 1e-6)


def test_only_what_is_asked_for_comes_back_from_the_gpu(machine, tmp_path):
    with engine_from_bundle(make_bundle(tmp_path, outputs=ALL_OUTPUTS), "fp16", ("iou_scores",)) as engine:
        assert tuple(engine.run(*people(3))) == ("iou_scores",)
        assert machine.calls["dtoh"] == 1  # one copy to the host: the other outputs stay on the GPU


@pytest.mark.parametrize(
    "crops, scores",
    [
        (np.zeros((2, HEIGHT, WIDTH + 1, 3), np.uint8), np.ones(2)),
        (np.zeros((2, HEIGHT, WIDTH, 3), np.float32), np.ones(2)),
        (np.zeros((0, HEIGHT, WIDTH, 3), np.uint8), np.ones(0)),
        (np.zeros((2, HEIGHT, WIDTH, 3), np.uint8), np.ones(3)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(machine, tmp_path, crops, scores):
    with (
        engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL) as engine,
        pytest.raises(QanetError, match="fit the"),
    ):
        engine.run(crops, scores)


def test_threads_take_turns(machine, tmp_path):
    with engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL) as engine:
        assert_threads_take_turns(engine, (1, 2, 3, 5))


def test_close_waits_for_the_batch_of_another_thread(machine, tmp_path):
    engine, batch, got = engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL), people(3), {}
    machine.gate.clear()
    runner = threading.Thread(target=lambda: got.update(engine.run(*batch)))
    runner.start()
    while not machine.calls["dtoh"]:
        time.sleep(0.001)
    closer = threading.Thread(target=engine.close)
    closer.start()
    closer.join(0.05)
    assert closer.is_alive() and not machine.calls["free"]
    machine.gate.set()
    runner.join()
    closer.join()
    np.testing.assert_array_equal(got["iou_scores"], network(*batch)["iou_scores"])
    assert not machine.memory
