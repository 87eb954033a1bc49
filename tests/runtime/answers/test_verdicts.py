"""The cache of verdicts: believed where it is this user's, of this machine and whole; done without where it is not."""

import json
import os
import subprocess
import sys
import time

import pytest

from qanet.runtime.answers import ask as asking
from qanet.runtime.answers import verdicts
from qanet.runtime.answers.ask import answer
from qanet.runtime.answers.verdicts import Verdict, recall, remember, verdict_key
from qanet.runtime.backends import openvino
from qanet.runtime.backends.base import KERNEL_TAIL_OUTPUTS

VERDICT = Verdict(True, "fp32", {"logits": (1e-4, 2e-3), "iou_scores": (0.0, 2e-3)}, 0.99, 1e-4, 3.5)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return verdicts.cache_folder()


def test_what_is_remembered_is_recalled(cache):
    key = verdict_key("engine", 1)
    assert recall(key) is None
    remember(key, VERDICT)
    assert recall(key) == VERDICT and recall(verdict_key("engine", 2)) is None


def test_the_worst_output_is_the_one_nearest_to_its_limit():
    assert VERDICT.worst == ("logits", 1e-4, 2e-3)
    assert "logits off by 0.0001, limit 0.002; 99% of the foreground" in str(VERDICT)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", "{broken", '{"key": "other"}', "[" * 3000, json.dumps({"right": "yes"})],
    ids=["empty", "bare", "list", "broken", "of another", "deep", "no boolean"],
)
def test_a_file_that_is_no_verdict_is_not_believed(cache, text):
    key = verdict_key("engine")
    remember(key, VERDICT)
    (cache / f"{key}.json").write_text(text)
    assert recall(key) is None


def test_a_verdict_that_contradicts_its_own_numbers_is_not_believed(cache):
    key = verdict_key("engine")
    remember(key, VERDICT)
    path = cache / f"{key}.json"
    path.write_text(path.read_text().replace('"right": true', '"right": false'))
    assert recall(key) is None


def test_asked_anew_recalls_nothing_for_the_block(cache):
    key = verdict_key("engine")
    remember(key, VERDICT)
    with verdicts.asked_anew():
        assert recall(key) is None
    assert recall(key) == VERDICT


def test_a_relative_cache_is_not_made_in_every_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "rel")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert verdicts.cache_folder() == tmp_path / "home" / ".cache" / "qanet" / "verdicts"


def test_a_verdict_under_another_name_is_not_believed(cache):
    first, second = verdict_key(1), verdict_key(2)
    remember(first, VERDICT)
    (cache / f"{first}.json").rename(cache / f"{second}.json")
    assert recall(second) is None


def test_a_file_that_others_may_write_or_that_is_a_link_is_not_believed(cache, tmp_path):
    key = verdict_key("engine")
    remember(key, VERDICT)
    path = cache / f"{key}.json"
    path.chmod(0o666)
    assert recall(key) is None
    path.chmod(0o644)
    assert recall(key) == VERDICT
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    assert recall(key) is None


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_not_believed(cache):
    key = verdict_key("engine")
    remember(key, VERDICT)
    os.chown(cache / f"{key}.json", 65534, 65534)
    assert recall(key) is None


def test_a_fifo_in_the_cache_holds_nobody_up(cache):
    key = verdict_key("engine")
    cache.mkdir(parents=True)
    os.mkfifo(cache / f"{key}.json")
    assert recall(key) is None


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    key = verdict_key("engine")
    remember(key, VERDICT)
    assert recall(key) is None


def test_a_machine_without_a_home_is_done_without(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(verdicts.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    remember(verdict_key("engine"), VERDICT)
    assert recall(verdict_key("engine")) is None


def test_another_machine_and_other_switches_have_other_keys(monkeypatch):
    here = verdict_key("engine")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert verdict_key("engine") != here
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    assert verdict_key("engine") == here
    monkeypatch.setattr(verdicts, "machine_identity", lambda: "another machine in a shared home")
    assert verdict_key("engine") != here


def test_an_engine_is_asked_once_and_then_known(answering, cache, monkeypatch):
    engine = openvino.engine_from_bundle(answering, "fp32", KERNEL_TAIL_OUTPUTS, 1)
    first = answer(answering, engine)
    assert first.right and len(list(cache.glob("*.json"))) == 1
    monkeypatch.setattr(asking, "ask", lambda *arguments: pytest.fail("it was asked again"))
    assert answer(answering, engine) == first
    spent_ms = []
    for _ in range(50):
        start = time.perf_counter()
        recall(verdict_key("openvino", "the rest of a key"))
        spent_ms.append((time.perf_counter() - start) * 1e3)
    assert min(spent_ms) < 0.5


def test_a_change_of_weights_outputs_or_answers_asks_again(answering, cache):
    answer(answering, openvino.engine_from_bundle(answering, "fp32", KERNEL_TAIL_OUTPUTS, 1))
    answer(answering, openvino.engine_from_bundle(answering, "fp32", ("labels", "quality"), 1))
    assert len(list(cache.glob("*.json"))) == 2
    answering.manifest["answers"]["tolerances"]["fp32"]["map"] = 1e-3
    answer(answering, openvino.engine_from_bundle(answering, "fp32", KERNEL_TAIL_OUTPUTS, 1))
    assert len(list(cache.glob("*.json"))) == 3


def test_two_processes_at_first_contact_are_both_right(answering, cache):
    script = f"""
import qanet, sys
parser = qanet.load({str(answering.path)!r}, device="cpu", threads=1)
print(parser.engine.precision)
"""
    runs = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [run.communicate(timeout=120)[0].strip() for run in runs] == ["fp32", "fp32"]
    assert [run.returncode for run in runs] == [0, 0]
    (file,) = cache.glob("*.json")
    assert recall(file.stem).right
