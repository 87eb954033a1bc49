"""A checkpoint out of the shipped detector's graph: the same answers, and statistics that training can go on from."""

import numpy as np
import pytest
import torch
from person_cases import write_people

from qanet.benchmarks.lab.unfold_detector import main, unfold
from qanet.bundle import open_bundle
from qanet.errors import QanetError
from qanet.train.networks.detector import scores_of
from qanet.train.weights import load_weights

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def windows():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (6, 64, 96, 3)).astype(np.uint8)


def test_the_network_answers_as_the_graph_does(windows):
    import onnxruntime

    bundle = open_bundle("person-lite0")
    network, recipe = unfold(bundle, windows)
    assert recipe.name == "person-lite0" and not network.training
    image = np.full((1, *bundle.input_hw, 3), 114, np.uint8)
    image[0, :64, :96] = windows[0]
    session = onnxruntime.InferenceSession(bundle.graph("fp32"), providers=["CPUExecutionProvider"])
    boxes, scores = session.run(["boxes", "scores"], {"crops": image})
    with torch.inference_mode():
        raw = network(network.normalise(torch.from_numpy(image)))
    assert np.abs(scores_of(raw).numpy() - scores).max() < 1e-4
    assert np.abs(raw.boxes.numpy() - boxes).max() < 0.05


def test_batch_norms_in_training_see_what_they_know(windows):
    """On the windows that gave the statistics, training mode answers as evaluation does."""
    network, _ = unfold(open_bundle("person-lite0"), windows)
    batch = network.normalise(torch.from_numpy(windows))
    with torch.no_grad():
        still, training = network(batch).logits, network.train()(batch).logits
    assert (still - training).abs().max() < 0.05 * still.std()


def test_the_command_writes_a_checkpoint_to_start_from(tmp_path, capsys):
    people = write_people(tmp_path / "people")
    file = tmp_path / "person.safetensors"
    assert main(["person-lite0", "--data", str(people), "--windows", "2", "--output", str(file)]) == 0
    assert str(file) in capsys.readouterr().out
    network, recipe = load_weights(file)
    assert recipe.name == "person-lite0" and all(p.isfinite().all() for p in network.parameters())


def test_other_bundles_and_too_few_windows_are_refused(windows, tmp_path):
    with pytest.raises(QanetError, match="does not detect people"):
        unfold(open_bundle("ccp13-lite0"), windows)
    with pytest.raises(QanetError, match="expected 2 or more"):
        main(["person-lite0", "--data", str(tmp_path), "--windows", "1", "--output", str(tmp_path / "x")])
