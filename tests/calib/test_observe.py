"""What is cached, under which name, and that a broken or absent cache costs time only."""

import hashlib

import numpy as np
import pytest

from qanet.calib.observe import CropSpool, Observations, cache_folder, cache_key, cached_observations, observe
from qanet.calib.placement import load_model
from qanet.calib.ranges import METHODS
from qanet.calib.scales import find_scales
from qanet.errors import QanetError

pytest.importorskip("onnxruntime")


def _each(crops):
    return (crops[i : i + 1] for i in range(len(crops)))


def test_the_network_runs_once_for_all_methods(small_model, crops, cache):
    seen = []
    first, was_there = find_scales(small_model, [crops], "entropy", progress=seen.append)
    assert not was_there and seen[-1] == 12
    assert (first, False) == find_scales(small_model, [crops], "entropy", use_cache=False)
    for method in METHODS:
        again, was_there = find_scales(small_model, [crops[:5], crops[5:]], method, progress=seen.append)
        assert was_there and len(seen) == 12
        assert (again, False) == find_scales(small_model, [crops], method, use_cache=False)
    assert len(list(cache.iterdir())) == 1


def test_other_crops_or_another_graph_are_run(small_model, crops, small_graph, cache):
    find_scales(small_model, [crops], "minmax")
    assert not find_scales(small_model, [crops[::-1]], "minmax")[1]
    other = small_graph(16, 12, seed=1).SerializeToString()
    assert not find_scales(other, [crops], "minmax")[1]
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("damage", [b"", b"no npz", "half"])
def test_a_broken_file_is_made_again(small_model, crops, cache, damage):
    whole = find_scales(small_model, [crops], "mse")[0]
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:500] if damage == "half" else damage)
    again, was_there = find_scales(small_model, [crops], "mse")
    assert again == whole and not was_there
    assert find_scales(small_model, [crops], "mse")[1]


def test_a_cache_that_cannot_be_written_is_no_error(small_model, crops, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert find_scales(small_model, [crops], "minmax")[0].crops == 12
    assert cached_observations("name", lambda: observe(load_model(small_model), [crops]))[1] is False


def test_observations_survive_the_file(small_model, crops):
    seen = observe(load_model(small_model), [crops])
    again = Observations.from_bytes(seen.to_bytes())
    assert (again.crops, again.is_black, again.largest) == (seen.crops, seen.is_black, seen.largest)
    for name, histogram in seen.histograms.items():
        assert (again.histograms[name].width, again.histograms[name].largest) == (histogram.width, histogram.largest)
        np.testing.assert_array_equal(again.histograms[name].counts, histogram.counts)


def test_names_tell_parts_apart():
    assert cache_key("ab", "c") != cache_key("a", "bc")
    assert cache_key("a", 1) == cache_key("a", 1)
    assert cache_folder().name == "calibration"


def test_a_spool_gives_the_crops_again_and_again(crops):
    with CropSpool(_each(crops)) as spool:
        for _ in range(2):
            np.testing.assert_array_equal(np.concatenate(list(spool)), crops)
        assert len(spool) == 12
        assert spool.digest == hashlib.sha256(crops.tobytes()).hexdigest()
    with CropSpool([]) as empty:
        assert list(empty) == []
    with pytest.raises(QanetError, match="differ in size"):
        CropSpool([crops[:1], crops[:1, :8]])
