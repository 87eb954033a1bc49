"""What TensorRT's builder is told, by release, over a made-up builder that has each release's names and no other."""

import json
import sys

import pytest
from fake_tensorrt_builder import tensorrt_builder_module

from qanet.errors import QanetError
from qanet.export.backends import tensorrt, tensorrt_library
from qanet.export.backends.census import check_delivered
from qanet.export.backends.tensorrt import refit
from qanet.export.backends.tensorrt_options import SHARED_CACHE, Options, low_memory

VERSIONS = ("10.3.0", "10.16.1.11", "11.4.1")


@pytest.fixture
def library(monkeypatch):
    """Installs a made-up TensorRT on a machine with an Orin."""

    def install(version="10.3.0", **more):
        module = tensorrt_builder_module(version, **more)
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        monkeypatch.setattr(tensorrt_library, "this_gpu", lambda: "sm_87")
        monkeypatch.setattr(tensorrt_library, "gpu_name", lambda: "Orin")
        return module

    return install


def build(graph, **options):
    return tensorrt.build(graph, runtime="tensorrt", options=Options(**options), outputs=("logits", "iou_scores"))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_release_builds_strongly_typed_and_its_inspector_is_read(library, graphs, version, precision):
    module = library(version)
    built = build(graphs[precision])
    (asked,) = module.builds
    assert asked["strongly_typed"] and asked["flags"] == [] and asked["verbosity"] == "DETAILED" and asked["monitored"]
    assert asked["pools"] == {"WORKSPACE": 4096} and asked["level"] == 3 and asked["sources"] is None
    assert (built.version, built.targets, built.batches, built.stripped) == (version, ("sm_87",), ((1, 4, 16),), False)
    check_delivered(built.census, precision)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"workspace_mib": 512}, {"pools": {"WORKSPACE": 512}}),
        ({"tactic_memory_mib": 256}, {"pools": {"WORKSPACE": 4096, "TACTIC_DRAM": 256}}),
        ({"optimization_level": 5}, {"level": 5}),
        ({"tf32": True}, {"flags": ["TF32"]}),
        ({"version_compatible": True}, {"flags": ["VERSION_COMPATIBLE"]}),
        ({"strip_weights": True}, {"flags": ["STRIP_PLAN"]}),
        ({"few_tactics": True}, {"sources": ["EDGE_MASK_CONVOLUTIONS"], "threads": 1}),
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_options_reach_the_builder(library, graphs, version, options, told):
    module = library(version)
    build(graphs["fp16"], **options)
    assert {name: module.builds[0][name] for name in told} == told


@pytest.mark.parametrize(
    ("options", "batches"),
    [
        ({}, [(1, 4, 16)]),
        ({"max_batch": 2}, [(1, 2, 2)]),
        ({"static_buckets": True}, [(n, n, n) for n in (1, 2, 4, 8, 16)]),
        ({"static_buckets": True, "max_batch": 6}, [(1, 1, 1), (2, 2, 2), (4, 4, 4), (6, 6, 6)]),
        ({"profile": (2, 3, 5)}, [(2, 3, 5)]),
        ({"dla": 0, "max_batch": 3}, [(3, 3, 3)]),
    ],
)
def test_batches_of_the_profiles(library, graphs, options, batches):
    module = library("10.3.0", dla_cores=1)
    assert build(graphs["fp16"], **options).batches == tuple(batches) == tuple(Options(**options).batches())
    crops = [profile["crops"] for profile in module.builds[0]["profiles"]]
    assert [tuple(shape[0] for shape in shapes) for shapes in crops] == batches
    assert [one.batches() for one in Options(**options).one_by_one()] == [[batch] for batch in batches]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_batch": 0}, "max_batch is too small"),
        ({"optimization_level": 6}, "0 to 5"),
        ({"workspace_mib": 0}, "workspace"),
        ({"profile": (4, 2, 8)}, "not in order"),
        ({"hardware_compatibility": "turing"}, "one of none, ampere., same_cc"),
        ({"dla": -1}, "no such DLA core"),
    ],
)
def test_values_out_of_range(options, message):
    with pytest.raises(QanetError, match=message):
        Options(**options)


@pytest.mark.parametrize(
    ("version", "options", "message"),
    [
        ("10.3.0", {"hardware_compatibility": "same_cc"}, "10.3.0 has no hardware compatibility level same_cc"),
        ("10.16.1.11", {"dla": 0}, "has no DLA; next: TensorRT 10.3 to 10.7, or 11.4.1"),
        ("11.4.0.106", {"dla": 0}, "has no DLA"),
        ("11.4.1", {"dla": 2}, "no such DLA core .expected one of the 2 here, got 2"),
    ],
)
def test_what_a_release_does_not_have_is_refused(library, graphs, version, options, message):
    library(version, dla_cores=2)
    with pytest.raises(QanetError, match=message):
        build(graphs["fp16"], **options)


def test_a_hardware_compatible_engine_is_for_all_those_gpus(library, graphs):
    module = library("10.16.1.11")
    built = build(graphs["fp16"], hardware_compatibility="ampere+")
    assert module.builds[0]["hardware"] == module.HardwareCompatibilityLevel.AMPERE_PLUS
    assert {"sm_86", "sm_120"} < set(built.targets) and "sm_75" not in built.targets


def test_a_version_compatible_engine_says_what_its_loader_must_allow(library, graphs):
    library()
    assert build(graphs["fp16"], version_compatible=True).options == {"engine_host_code_allowed": "true"}
    assert build(graphs["fp16"]).options == {}


def test_a_dla_is_counted_layer_by_layer_and_its_absence_is_an_error(library, graphs):
    module = library("10.3.0", dla_cores=2)
    built = build(graphs["fp16"], dla=1)
    assert module.builds[0]["dla"] == 1 and module.builds[0]["flags"] == ["GPU_FALLBACK"]
    check_delivered(built.census, "fp16")
    on_dla = {layer.name for layer in built.census.compute if "ForeignNode" in layer.engine_layer}
    assert on_dla == {"stem", "body", "classify"}
    library("10.3.0", dla_cores=2, faults=("no dla",))
    with pytest.raises(QanetError, match="DLA was asked for and every layer fell back to the GPU"):
        build(graphs["fp16"], dla=1)


def test_a_plan_without_weights_gets_them_back(library, graphs):
    library()
    built = build(graphs["fp16"], strip_weights=True)
    assert built.stripped and json.loads(built.data)["weights"] is False
    whole = refit(built.data, graphs["fp16"], ("logits", "iou_scores"))
    assert json.loads(whole)["weights"] is True
    with pytest.raises(QanetError, match="model.onnx lacks weights of the engine .expected 1 more, got no iou"):
        refit(built.data, graphs["fp16"], ("logits",))
    with pytest.raises(QanetError, match="refuses the engine without weights .got Serialization assertion"):
        refit(b"torn", graphs["fp16"], None)


def test_asked_but_not_delivered_is_seen_by_the_census(library, graphs):
    library(faults=("fp32",))
    with pytest.raises(QanetError, match="fp16 was asked for and not delivered in 4 of 4 compute layers: stem .fp32."):
        check_delivered(build(graphs["fp16"]).census, "fp16")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no plan", "could not build model.onnx for sm_87: .*OutOfMemory.*; next: raise --workspace, lower"),
        ("no inspector", "reports no layers of its engine"),
    ],
)
def test_a_builder_that_returns_nothing(library, graphs, fault, message):
    library(faults=(fault,))
    with pytest.raises(QanetError, match=message):
        build(graphs["fp16"])


def test_the_shared_cache_is_read_by_the_next_build_and_by_no_other_kind(library, graphs, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    module = library()
    for options in ({}, {}, {"optimization_level": 1}, {"few_tactics": True}):
        build(graphs["fp16"], timing_cache=SHARED_CACHE, **options)
    assert [bool(asked["cached"]) for asked in module.builds] == [False, True, False, False]
    newer = library("10.16.1.11")
    build(graphs["fp16"], timing_cache=SHARED_CACHE)
    assert newer.builds[0]["cached"] == []
    monkeypatch.setattr(tensorrt_library, "gpu_name", lambda: "Orin Nano")
    build(graphs["fp16"], timing_cache=SHARED_CACHE)
    assert newer.builds[1]["cached"] == []
    files = sorted(path.name for path in (tmp_path / "qanet" / "timing").iterdir())
    assert len(files) == 5 and all(name.endswith(".cache") and "-sm_87-" in name for name in files)


def test_two_builds_that_end_together_keep_what_both_measured(library, graphs, tmp_path, monkeypatch):
    module, file = library(), tmp_path / "cache"
    real = module.Builder.build_serialized_network

    def meanwhile(self, network, config):
        file.write_bytes(b'["another build"]')
        return real(self, network, config)

    monkeypatch.setattr(module.Builder, "build_serialized_network", meanwhile)
    build(graphs["fp16"], timing_cache=file)
    kept = json.loads(file.read_bytes())
    assert "another build" in kept and "Conv" in kept


def test_a_cache_of_another_gpu_starts_anew_and_says_so(library, graphs, tmp_path):
    library()
    (tmp_path / "cache").write_bytes(b"of another GPU")
    built = build(graphs["fp16"], timing_cache=tmp_path / "cache")
    assert any("was measured on another GPU" in message for message in built.messages)
    assert "Conv" in json.loads((tmp_path / "cache").read_bytes())


def test_low_memory_lowers_what_was_not_given():
    low = low_memory(Options())
    assert (low.workspace_mib, low.tactic_memory_mib, low.optimization_level, low.max_batch) == (256, 512, 2, 4)
    assert low.few_tactics
    given = low_memory(Options(workspace_mib=2048, max_batch=8), given=frozenset({"workspace_mib", "max_batch"}))
    assert (given.workspace_mib, given.max_batch, given.optimization_level) == (2048, 8, 2)
