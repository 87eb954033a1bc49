"""The document: its files, what of them is refused, and the comparison in it."""

import csv
import io
import json

import pytest

from qanet.benchmarks import tables as output
from qanet.benchmarks.results import Results, read_document
from qanet.errors import QanetError


def test_results_json_round_trip(document, tmp_path):
    output.write_results(tmp_path, Results.from_json(document))
    again = read_document(tmp_path / "results.json")
    assert again == json.loads(json.dumps(document)) and again["schema_version"] == 2
    assert again["targets"][1]["samples_ms"] == [20.0, 20.0, 20.0, 40.0]
    assert "compute" not in again["bundle"]["engines"][0]["census"]


def test_results_csv_has_a_row_a_target(document):
    rows = list(csv.DictReader(io.StringIO(output.csv_text(Results.from_json(document)))))
    assert [row["name"] for row in rows] == [t["name"] for t in document["targets"]]
    assert (rows[1]["p50_ms"], rows[1]["n"], rows[1]["max_ms"]) == ("20.0", "4", "40.0")
    assert rows[-1]["status"] == "refused" and rows[-1]["p50_ms"] == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "newer"),
        ({"kind": "else"}, "no benchmark result"),
        ({"schema_version": "1"}, "no benc"),
    ],
)
def test_a_foreign_document_is_refused(document, tmp_path, change, message):
    (tmp_path / "r.json").write_text(json.dumps({**document, **change}))
    with pytest.raises(QanetError, match=message):
        read_document(tmp_path / "r.json")


@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_a_file_that_is_no_json_object_is_refused(tmp_path, content):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(QanetError):
        read_document(tmp_path / "r.json")


def test_comparison_puts_speed_beside_accuracy(document):
    fp32, fp16, int8 = document["comparison"]
    assert fp16["engine_speed_up"] == 2.0 and fp16["engine_ms"]["p50"] == 10.0  # batch 1, not batch 2
    assert fp32["accuracy"]["miou"] == 0.51234 and fp32["accuracy_note"] == "ccp val, 100 images"
    assert fp16["accuracy"]["miou"] is None and int8["engine_ms"] is None and int8["status"] == "refused"
