"""`qanet build` on this machine and on others: known answers, types that a CPU lacks, INT8 without VNNI, times."""

import json

import numpy as np
import pytest
from engine_graphs import HEIGHT, WIDTH
from int8_bundle import make_int8_bundle

from qanet.__main__ import main as qanet
from qanet.bundle import NO_VNNI, open_bundle
from qanet.calib.quantize import int8_of_this_cpu
from qanet.export.building import options, timing
from qanet.runtime.answers import ask as asking
from qanet.runtime.answers.known import FILE, stored_answers
from qanet.runtime.backends import openvino

INT8 = int8_of_this_cpu()


@pytest.fixture
def bundle(tmp_path):
    return make_int8_bundle(tmp_path)


def build(bundle, *arguments, precision="fp32,int8"):
    return qanet(["build", str(bundle), "--runtime", "openvino", "--precision", precision, *arguments])


def test_a_build_adds_the_answers_that_a_bundle_lacks_and_says_so(bundle, capsys):
    assert build(bundle) == 0
    said = capsys.readouterr().err
    assert "int8 has no known answers; they are made from its FP32 graph by ONNX Runtime" in said
    assert said.count("known answers: ") == 2
    known = stored_answers(open_bundle(bundle))
    assert known.crops.shape == (2, HEIGHT, WIDTH, 3) and set(known.outputs) == {"fp32", INT8}
    before = (bundle / FILE).read_bytes()
    assert build(bundle) == 0
    assert "has no known answers" not in capsys.readouterr().err and (bundle / FILE).read_bytes() == before


@pytest.fixture
def fp32_only(monkeypatch):
    """A CPU without 16-bit floating point."""
    monkeypatch.setattr(options, "deliverable", lambda precision, outputs=None: "fp32")


def test_a_type_that_the_cpu_lacks_is_said_and_not_built(bundle, fp32_only, capsys):
    assert build(bundle, "--json", precision="fp32,fp16") == 0
    printed = capsys.readouterr()
    assert "fp16 was not built: this CPU computes FP32 only" in printed.err
    document = json.loads(printed.out)
    assert document["not_built"] == {"fp16": "fp16 was not built: this CPU computes FP32 only"}
    assert [e["precision"] for e in document["engines"]] == ["fp32"]
    made = open_bundle(bundle)
    assert "fp16" not in made.manifest["graphs"] and len(made.engines) == 1


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp16,bf16"])
def test_nothing_but_types_that_the_cpu_lacks_is_exit_code_2(bundle, fp32_only, capsys, precision):
    before = (bundle / "manifest.json").read_bytes()
    assert build(bundle, precision=precision) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and "was not built: this CPU computes FP32 only" in line and "next: " in line
    assert (bundle / "manifest.json").read_bytes() == before


def test_int8_is_built_without_vnni_where_the_cpu_has_none(bundle, monkeypatch, capsys):
    monkeypatch.setattr(options, "sums_saturate", lambda: True)
    assert build(bundle) == 0
    made = open_bundle(bundle)
    (entry,) = [e for e in made.engines if e["precision"] == "int8"]
    assert entry["graph"] == NO_VNNI and entry["weights"] == "pairs within 128" and NO_VNNI in entry["file"]
    assert made.manifest["graphs"].keys() == {"fp32", "int8", NO_VNNI}
    assert "int8 (no VNNI)" in capsys.readouterr().out
    assert qanet(["inspect", str(bundle)]) == 0
    shown = capsys.readouterr().out
    assert (
        "pairs within 128" in shown and "known answers of fp32, int8-no-vnni" in shown and "one crop in turns" in shown
    )
    if INT8 == NO_VNNI:
        return  # what follows is for a CPU that has VNNI
    monkeypatch.setattr(options, "sums_saturate", lambda: False)
    assert build(bundle) == 0  # brought to a CPU that has it: the other takes its place
    (entry,) = [e for e in open_bundle(bundle).engines if e["precision"] == "int8"]
    assert entry["weights"] == "8 bits" and len(list((bundle / "engines").iterdir())) == 2


def test_int8_that_answers_wrongly_is_built_again_without_vnni(bundle, monkeypatch, capsys):
    """As under an emulator: the flags are another CPU's, the answers are this one's."""
    run = openvino.OpenVinoEngine.run

    def saturated(self, crops, box_scores):
        outputs = run(self, crops, box_scores)
        if self.origin is not None and self.origin.graph == "int8":
            outputs["logits"] = np.minimum(outputs["logits"], 0.3 * outputs["logits"].max())
        return outputs

    monkeypatch.setattr(openvino.OpenVinoEngine, "run", saturated)
    monkeypatch.setattr(options, "sums_saturate", lambda: False)
    assert build(bundle) == 0
    assert "int8 of int8 answers wrongly on this CPU" in capsys.readouterr().err
    (entry,) = [e for e in open_bundle(bundle).engines if e["precision"] == "int8"]
    assert entry["graph"] == NO_VNNI


def test_what_was_built_is_timed_in_turns_and_recorded(bundle, monkeypatch, capsys):
    monkeypatch.setattr(timing, "samples_in_turns", lambda calls: {name: [3.0, 2.0, 9.0] for name in calls})
    assert build(bundle) == 0
    (record,) = open_bundle(bundle).manifest["timings"]
    assert record["runtime"] == "openvino" and record["least_ms"] == {"fp32": 2.0, INT8: 2.0}
    assert record["outputs"] == ["iou_scores", "logits"] and record["rounds"] == 3
    said = capsys.readouterr().err
    assert f"auto takes fp32; {INT8} is no faster than fp32 here" in said
    assert build(bundle, "--tail", "graph") == 0  # other outputs have a record of their own, the same ones the newest
    assert build(bundle) == 0
    assert len(open_bundle(bundle).manifest["timings"]) == 2


def test_fp32_is_timed_beside_int8_though_it_was_not_built(bundle):
    assert build(bundle, precision="int8") == 0
    (record,) = open_bundle(bundle).manifest["timings"]
    assert record["least_ms"].keys() == {"fp32", INT8} and min(record["least_ms"].values()) > 0


def test_doctor_asks_every_engine_that_could_run_here(bundle, capsys):
    assert build(bundle) == 0
    capsys.readouterr()
    before = (bundle / "manifest.json").read_bytes()
    assert qanet(["doctor", "--prove", str(bundle), "--json"]) == 0
    proof = json.loads(capsys.readouterr().out)
    rows = {(row["runtime"], row["precision"]): row for row in proof["engines"]}
    right = [key for key, row in rows.items() if row["answer"] == "right"]
    assert {("openvino", "fp32"), ("onnxruntime", "fp32"), ("openvino", "int8 for CPUs without VNNI")} <= set(right)
    assert all(rows[key]["ms"] > 0 for key in right)
    assert proof["auto"].startswith("auto takes ") and proof["auto_is_right"] is True
    assert (bundle / "manifest.json").read_bytes() == before  # graphs that were missing are made in memory
    assert qanet(["doctor", "--prove", "nowhere"]) == 2


def test_doctor_shows_what_answers_wrongly(bundle, monkeypatch, capsys):
    assert build(bundle) == 0
    run = openvino.OpenVinoEngine.run

    def doubled(self, crops, box_scores):
        return {name: values * np.float32(2) for name, values in run(self, crops, box_scores).items()}

    monkeypatch.setattr(openvino.OpenVinoEngine, "run", doubled)
    monkeypatch.setattr(asking, "recall", lambda key: None)  # as on a machine that never saw it
    assert qanet(["doctor", "--prove", str(bundle)]) == 1
    shown = capsys.readouterr().out
    assert "WRONG: not used" in shown and "auto takes nothing: " in shown


def test_a_bundle_that_two_cpus_built_into_holds_what_both_need(bundle, monkeypatch):
    """Another CPU's INT8 engine stays, and is neither loaded nor timed here."""
    if INT8 == NO_VNNI:
        pytest.skip("the other graph answers wrongly on this CPU, so that it cannot be built here")
    monkeypatch.setattr(options, "sums_saturate", lambda: True)  # build what this CPU would not
    assert build(bundle, precision="int8") == 0
    made = open_bundle(bundle)
    for entry in made.engines:
        entry["cpu"] = "Another CPU [FP32]"
    made.manifest["timings"] = []
    made.save()
    monkeypatch.setattr(options, "sums_saturate", lambda: False)
    assert build(bundle, precision="int8") == 0
    made = open_bundle(bundle)
    assert {e["graph"] for e in made.engines} == {"int8", NO_VNNI}
    (record,) = made.manifest["timings"]
    assert record["least_ms"].keys() == {"fp32", INT8}
