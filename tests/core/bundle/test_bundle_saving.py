"""A save is one step: all of it or nothing, beside other processes, and the same bytes for the same content."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qanet.bundle import copy_bundle, create, open_bundle
from qanet.bundle.manifest import merge
from qanet.errors import QanetError
from qanet.files import locked


def snapshot(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def engine(bundle, precision="fp32", data=b"engine", name=None, **more):
    entry = {"runtime": "openvino", "precision": precision, **more}
    bundle.add_engine(f"engines/{name or precision}.blob", data, entry)


def test_nothing_is_written_before_save_and_all_of_it_by_save(tiny_bundle):
    before = snapshot(tiny_bundle)
    bundle = open_bundle(tiny_bundle)
    engine(bundle)
    bundle.add_file("scales.json", b"{}")
    assert snapshot(tiny_bundle) == before and bundle.read("scales.json") == b"{}"
    bundle.save()
    after = open_bundle(tiny_bundle)
    after.verify()
    assert snapshot(tiny_bundle).keys() - before.keys() == {"engines/fp32.blob", "scales.json"}


def test_a_disk_that_fills_up_at_the_second_file_leaves_the_first_too(tiny_bundle, monkeypatch):
    bundle = open_bundle(tiny_bundle)
    bundle.add_file("scales.json", b"old")
    bundle.save()
    before, real, calls = snapshot(tiny_bundle), os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 3:  # the manifest and scales.json are on the disk, aside
            raise OSError(28, "No space left on device")
        real(descriptor)

    bundle.add_file("scales.json", b"new")
    bundle.add_file("model.int8.onnx", b"graph")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(QanetError, match="could not write .*model.int8.onnx .*No space left on device"):
        bundle.save()
    assert snapshot(tiny_bundle) == before
    monkeypatch.undo()
    bundle.save()  # what was added is still there to save
    open_bundle(tiny_bundle).verify()


def test_a_disk_too_small_for_an_engine_is_told_before_it_is_written(tiny_bundle, monkeypatch):
    usage = type("usage", (), {"free": 100 << 10})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    bundle, before = open_bundle(tiny_bundle), snapshot(tiny_bundle)
    engine(bundle, data=bytes(200 << 10))
    with pytest.raises(QanetError, match="no room to write into"):
        bundle.save()
    assert snapshot(tiny_bundle) == before


def test_two_who_opened_the_same_bundle_both_keep_their_engines(tiny_bundle):
    first, second = open_bundle(tiny_bundle), open_bundle(tiny_bundle)
    engine(first, "fp32")
    first.manifest["accuracy"]["fp32"] = {"miou": 0.5}
    first.save()
    engine(second, "fp16")
    second.manifest["accuracy"]["int8"] = {"miou": 0.4}
    second.save()
    both = open_bundle(tiny_bundle)
    both.verify()
    assert [e["precision"] for e in both.engines] == ["fp16", "fp32"]
    assert both.manifest["accuracy"] == {"fp32": {"miou": 0.5}, "int8": {"miou": 0.4}} == second.manifest["accuracy"]


WRITE = """
import sys
from qanet.bundle import open_bundle
for number in range(15):
    bundle = open_bundle(sys.argv[1])
    bundle.add_engine(f"engines/{sys.argv[2]}{number}.plan", sys.argv[2].encode() * 5000,
                      {"runtime": "tensorrt", "precision": "fp16"})
    bundle.add_engine("engines/shared.plan", f"{sys.argv[2]}{number}".encode(), {"runtime": "tensorrt",
                      "precision": "int8", "by": sys.argv[2]})
    bundle.save()
"""


def test_processes_that_build_at_once_lose_nothing_and_readers_see_no_half(tiny_bundle):
    processes = [subprocess.Popen([sys.executable, "-c", WRITE, str(tiny_bundle), name]) for name in ("a", "b")]
    while any(process.poll() is None for process in processes):
        reader = open_bundle(tiny_bundle)
        for entry in reader.engines:
            reader.read(entry["file"])
    assert [process.returncode for process in processes] == [0, 0]
    bundle = open_bundle(tiny_bundle)
    bundle.verify()
    assert len(bundle.engines) == 31
    shared = next(e for e in bundle.engines if e["file"] == "engines/shared.plan")
    assert bundle.read(shared["file"]).decode() == f"{shared['by']}14"


def test_a_save_waits_for_another_and_says_for_whom(tiny_bundle, monkeypatch):
    monkeypatch.setattr("qanet.bundle.storage._SAVE_TIMEOUT_S", 0.1)
    with (
        locked(tiny_bundle / ".manifest.lock", timeout_s=0, doing="testing"),
        pytest.raises(QanetError, match=f"saving .*tiny.qanet must wait for process {os.getpid()}"),
    ):
        open_bundle(tiny_bundle).save()


def test_an_engine_leaves_with_the_graph_it_was_built_from(tiny_bundle):
    bundle = open_bundle(tiny_bundle)
    bundle.add_file("model.int8.onnx", b"old scales")
    bundle.manifest["graphs"]["int8"] = "model.int8.onnx"
    for precision in ("fp32", "int8"):
        graph = bundle.manifest["files"][bundle.manifest["graphs"][precision]]["sha256"]
        engine(bundle, precision, graph_sha256=graph)
    bundle.save()
    builder = open_bundle(tiny_bundle)  # a build that goes on while the bundle is calibrated again
    bundle.add_file("model.int8.onnx", b"new scales")
    bundle.save()
    assert [e["precision"] for e in bundle.engines] == ["fp32"]
    assert sorted(os.listdir(tiny_bundle / "engines")) == ["fp32.blob"]
    engine(builder, "int8", graph_sha256=builder.manifest["files"]["model.int8.onnx"]["sha256"])
    builder.save()
    again = open_bundle(tiny_bundle)
    again.verify()
    assert [e["precision"] for e in again.engines] == ["fp32"] and "engines/int8.blob" not in again.manifest["files"]
    assert not (tiny_bundle / "engines" / "int8.blob").exists()


def test_the_same_content_is_the_same_bytes(tiny_graph, tmp_path):
    def make(folder, order):
        bundle = create(folder / "a.qanet", labels="ccp13", input_hw=[64, 64], graphs={"fp32": "model.onnx"})
        bundle.add_file("model.onnx", tiny_graph)
        for precision in order:
            engine(bundle, precision)
            bundle.save()
        return snapshot(bundle.path)

    assert make(tmp_path / "1", ("fp32", "int8")) == make(tmp_path / "2", ("int8", "fp32"))


def test_a_copy_that_cannot_be_put_in_place_leaves_the_old_bundle(tiny_bundle, tmp_path, monkeypatch):
    bundle, target = open_bundle(tiny_bundle), tmp_path / "copy.qanet"
    copy_bundle(bundle, target)
    before, real = snapshot(target), Path.rename

    def rename(self, to):
        if self.name.endswith(".new.partial"):
            raise OSError(28, "No space left on device")
        return real(self, to)

    monkeypatch.setattr(Path, "rename", rename)
    bundle.manifest["name"] = "newer"
    with pytest.raises(OSError, match="No space left"):
        copy_bundle(bundle, target)
    assert snapshot(target) == before and sorted(os.listdir(tmp_path)) == ["copy.qanet", "tiny.qanet"]
    monkeypatch.undo()
    copy_bundle(bundle, target)
    assert open_bundle(target).name == "newer" and sorted(os.listdir(tmp_path)) == ["copy.qanet", "tiny.qanet"]


COPY = """
import sys
from pathlib import Path
from qanet.bundle import open_bundle, writable_copy
source = open_bundle(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
writable_copy(source, Path(sys.argv[2])).verify()
"""


def test_processes_that_copy_into_one_new_bundle_at_once_all_have_it(tiny_bundle, tmp_path):
    for number in range(5):
        target = tmp_path / f"new{number}.qanet"
        command = [sys.executable, "-c", COPY, str(tiny_bundle), str(target)]
        processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        errors = [process.communicate()[1] for process in processes]
        assert [process.returncode for process in processes] == [0, 0, 0], errors
        open_bundle(target).verify()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_copy_that_was_killed_between_its_renames_is_made_good(tiny_bundle, tmp_path):
    target = tmp_path / "copy.qanet"
    copy_bundle(open_bundle(tiny_bundle), target)
    before = snapshot(target)
    target.rename(tmp_path / ".copy.qanet.old.partial")
    (tmp_path / ".copy.qanet.new.partial").mkdir()
    broken = open_bundle(tiny_bundle)
    broken.manifest["files"]["gone"] = {"sha256": "0" * 64, "bytes": 1}
    with pytest.raises(QanetError, match="gone"):
        copy_bundle(broken, target)
    assert snapshot(target) == before and sorted(os.listdir(tmp_path)) == ["copy.qanet", "tiny.qanet"]


def test_a_copy_goes_where_a_link_points(tiny_bundle, tmp_path):
    (tmp_path / "link.qanet").symlink_to("real.qanet")
    for name in ("first", "second"):  # the second replaces the first
        bundle = open_bundle(tiny_bundle)
        bundle.manifest["name"] = name
        copy_bundle(bundle, tmp_path / "link.qanet")
        assert (
            os.readlink(tmp_path / "link.qanet") == "real.qanet" and open_bundle(tmp_path / "real.qanet").name == name
        )
    assert sorted(os.listdir(tmp_path)) == ["link.qanet", "real.qanet", "tiny.qanet"]


@pytest.mark.parametrize("place", ["engines", "engines/inner"])
def test_a_folder_that_links_out_of_the_bundle_is_not_written_to(tiny_bundle, tmp_path, place):
    outside = tmp_path / "outside"
    outside.mkdir()
    (tiny_bundle / place).parent.mkdir(exist_ok=True)
    (tiny_bundle / place).symlink_to(outside)
    with pytest.raises(QanetError, match="leads out of the bundle"):
        open_bundle(tiny_bundle).add_file(f"{place}/e.plan", b"engine")
    assert os.listdir(outside) == []


def test_a_file_dropped_from_the_manifest_that_leads_out_is_not_deleted(tiny_bundle, tmp_path):
    kept = tmp_path / "kept.txt"
    kept.write_text("years of work")
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    manifest["files"]["../kept.txt"] = {"sha256": "0", "bytes": 1}
    (tiny_bundle / "manifest.json").write_text(json.dumps(manifest))
    bundle = open_bundle(tiny_bundle)
    del bundle.manifest["files"]["../kept.txt"]
    bundle.save()
    assert kept.read_text() == "years of work"


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged"),
    [
        ({"a": 1}, {"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": 1}, {"a": 3}, {"a": 2}, {"a": 3}),
        ({"a": 1}, {}, {"a": 1, "b": 2}, {"b": 2}),
        ({}, {"a": 1}, {}, {"a": 1}),
        ({"a": {}}, {"a": {"x": 1}}, {"a": {"y": 2}}, {"a": {"x": 1, "y": 2}}),
        ({"a": {"x": 1}}, {"a": {}}, {"a": {"x": 1, "y": 2}}, {"a": {"y": 2}}),
        ({"a": [1]}, {"a": [1, 2]}, {"a": [1, 3]}, {"a": [1, 2]}),
        (
            {"engines": [{"file": "a"}]},
            {"engines": [{"file": "c"}]},
            {"engines": [{"file": "a"}, {"file": "b"}]},
            {"engines": [{"file": "b"}, {"file": "c"}]},
        ),
        (
            {"engines": []},
            {"engines": [{"file": "a", "n": 1}]},
            {"engines": [{"file": "a", "n": 2}]},
            {"engines": [{"file": "a", "n": 1}]},
        ),
    ],
)
def test_changes_of_two_writers_are_united(base, ours, theirs, merged):
    assert merge(base, ours, theirs) == merged
