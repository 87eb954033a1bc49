"""A document as files and as text: results.json, results.csv, the table and the summary line."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from qanet.commandline import table
from qanet.files import write_text

_FIGURES = ("n", "p50", "p90", "p95", "p99", "max", "mean", "mad")
_COLUMNS = ("name", "kind", "variant", "precision", "runtime", "batch", "session", "status", "error")
_RATES = ("calls_per_second", "people_per_second", "peak_extra_mib")


def write_results(folder: Path, document: dict[str, Any]) -> None:
    """results.json and results.csv into `folder`, each whole or not at all."""
    write_text(folder / "results.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
    write_text(folder / "results.csv", csv_text(document))


def csv_text(document: dict[str, Any]) -> str:
    """A row a target, latencies in milliseconds, empty cells for what was not measured."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*_COLUMNS, "n", *(f"{figure}_ms" for figure in _FIGURES[1:]), *_RATES])
    for target in document["targets"]:
        figures = [target["latency_ms"].get(figure) for figure in _FIGURES]
        writer.writerow([*(target[c] for c in _COLUMNS), *figures, *(target[c] for c in _RATES)])
    return buffer.getvalue()


def text(document: dict[str, Any], folder: Path) -> str:
    """What a person reads on the terminal."""
    source, timing, bundle = document["input"], document["timing"], document["bundle"]
    head = (
        f"{bundle['name']} on {document['machine']['cpu']['model'] or 'an unnamed CPU'}, {timing['rounds']} rounds in "
        f"{timing['seconds']:.1f} s, {source['people']} people in {source['frames_with_people']} of {source['frames']} "
        f"frames of {source['name']}"
    )
    parts = [head, _target_table(document), _comparison_table(document), *more_tables(document), _scope(timing)]
    return (
        "\n\n".join(parts) + f"\n\nwrote {folder / 'report.html'}, {folder / 'results.json'}, {folder / 'results.csv'}"
    )


def summary_line(document: dict[str, Any], folder: Path) -> str:
    """The measurement on one line of JSON."""
    variants = {
        entry["label"]: {
            "status": entry["status"],
            "engine_p50_ms": (entry["engine_ms"] or {}).get("p50"),
            "parser_p50_ms": (entry["parser_ms"] or {}).get("p50"),
            "speed_up": entry["engine_speed_up"],
            "miou": entry["accuracy"]["miou"],
            "agreement_miou": (entry["agreement"] or {}).get("miou"),
            "over_baseline": (entry["over_baseline"] or {}).get("value"),
            "pareto": entry["pareto"],
        }
        for entry in document["comparison"]
    }
    summary = {"bundle": document["bundle"]["name"], "variants": variants, "rounds": document["timing"]["rounds"]}
    summary |= {"interrupted": document["timing"]["interrupted"], "report": str(folder / "report.html")}
    return json.dumps(summary)


def _target_table(document: dict[str, Any]) -> str:
    rows: list[tuple[object, ...]] = []
    for target in document["targets"]:
        figures = target["latency_ms"]
        cells = [_ms(figures.get(key)) for key in ("p50", "p90", "p95", "p99", "max", "mad")]
        state = target["status"] if not target["error"] else f"{target['status']}: {target['error']}"
        rate = target["calls_per_second"]
        rows.append((target["name"], *cells, _interval(target["p50_interval_ms"]), _rate(rate), figures["n"], state))
    header = ("target", "p50 ms", "p90 ms", "p95 ms", "p99 ms", "max ms", "MAD ms", "p50 95%", "calls/s", "n", "")
    return table(rows, header)


def _comparison_table(document: dict[str, Any]) -> str:
    rows: list[tuple[object, ...]] = []
    for entry in document["comparison"]:
        agreement = entry["agreement"] or {}
        speed = entry["engine_speed_up"]
        rows.append(
            (
                entry["label"],
                "-" if speed is None else f"{speed:.2f}x",
                _times((entry["over_baseline"] or {}).get("value")),
                _share(entry["accuracy"]["miou"]),
                _share(entry["accuracy"]["pixel_accuracy"]),
                _share(agreement.get("pixels")),
                _share(agreement.get("foreground")),
                _share(agreement.get("miou")),
                _front(entry["pareto"]),
            )
        )
    header = (
        "variant",
        "engine speed-up",
        "over PyTorch",
        "mIoU",
        "pixel acc.",
        "agree all",
        "agree foreground",
        "agree mIoU",
        "Pareto front",
    )
    return table(rows, header)


def _scope(timing: dict[str, Any]) -> str:
    timed = [f"  timed, {kind}: {words}" for kind, words in timing["timed"].items()]
    return "\n".join([*timed, *(f"  not timed: {words}" for words in timing["not_timed"])])


def _ms(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"


def _interval(value: dict[str, float] | None) -> str:
    return "-" if value is None else f"{value['low']:.4g} .. {value['high']:.4g}"


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def _front(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"


def _share(value: float | None) -> str:
    return "not measured" if value is None else f"{100 * value:.2f}%"


_ACCURACIES = ("miou", "pixel_accuracy", "ap_p", "ap_r", "rank_correlation_quality", "ece_quality")


def more_tables(document: dict[str, Any]) -> list[str]:
    """Models against each other, accuracy, start and memory, pipeline, energy, pieces, MLPerf."""
    parts = (_models, _accuracy, _costs, _pipeline, _energy, _pieces, _mlperf)
    return [text for part in parts if (text := part(document))]


def _models(document: dict[str, Any]) -> str:
    rows = [
        (
            f"{row['new']} over {row['old']}",
            row["kind"],
            row["of"],
            _ratio(row["ratio"]),
            row["verdict"] + (f": {row['reason']}" if row["reason"] else ""),
        )
        for row in document.get("models") or []
    ]
    return table(rows, ("models in the same rounds", "target", "of", "new / old (95%)", "verdict")) if rows else ""


def _accuracy(document: dict[str, Any]) -> str:
    rows = [
        (label, *(_interval_x100(entry["values"].get(key)) for key in _ACCURACIES))
        for label, entry in (document.get("accuracy") or {}).items()
    ]
    header = ("accuracy, x 100 (95% over images)", "mIoU", "pixel acc.", "AP^p", "AP^r", "rank corr. Q", "ECE Q")
    return table(rows, header) if rows else ""


def _costs(document: dict[str, Any]) -> str:
    cold = document.get("cold_start") or {}
    extra = {t["variant"]: t["peak_extra_mib"] for t in document["targets"] if t["kind"] == "parser"}
    rows = [
        (label, _figure(ms), _cold(cold[label]) if label in cold else "not measured", _figure(extra.get(label)))
        for label, ms in (document.get("open_ms") or {}).items()
    ]
    peak = _figure((document.get("memory") or {}).get("process_peak_mib"))
    header = ("start and memory", "engine opened ms", "cold start ms", f"MiB beyond resident (peak of all {peak})")
    return table(rows, header) if rows else ""


def _pipeline(document: dict[str, Any]) -> str:
    found = document.get("pipeline") or {}
    stages = list(dict.fromkeys(stage for entry in found.values() for stage in entry["stages_ms"]))
    rows = [
        (
            label,
            _figure(entry["ms_per_frame"].get("p50")),
            *(_figure((entry["stages_ms"].get(stage) or {}).get("p50")) for stage in stages),
        )
        for label, entry in found.items()
    ]
    return table(rows, ("video pipeline, p50 ms", "a frame", *stages)) if rows else ""


def _energy(document: dict[str, Any]) -> str:
    energy = document.get("energy")
    if not energy:
        return ""
    if energy["status"] != "measured":
        return f"energy: unavailable: {energy['reason']}"
    rows = [
        (
            label,
            _figure(entry.get("mj_per_frame")),
            _figure(entry.get("mj_per_person")),
            _figure(entry.get("watts")),
            entry["reason"] or "",
        )
        for label, entry in energy["by_variant"].items()
    ]
    head = f"energy by {energy['source']}, above {energy['idle_w']:.2f} W idle"
    return table(rows, (head, "mJ a frame", "mJ a person", "W", ""))


def _pieces(document: dict[str, Any]) -> str:
    rows = [
        (
            row["target"],
            _figure(row["latency_ms"].get("p50")),
            _figure(row["floor_ms"]),
            row["floor_by"],
            _figure(row["times_floor"]),
        )
        for row in (document.get("micro") or {}).get("rows", [])
    ]
    return table(rows, ("piece", "p50 ms", "floor ms", "floor by", "times the floor")) if rows else ""


def _mlperf(document: dict[str, Any]) -> str:
    rows = [
        (
            label,
            entry["scenario"],
            "VALID" if entry["valid"] else "INVALID",
            _figure(entry.get("p90_ms")),
            _figure(entry.get("samples_per_second")),
        )
        for label, entry in (document.get("mlperf") or {}).items()
    ]
    return table(rows, ("MLPerf loadgen", "scenario", "by its rules", "p90 ms", "samples/s")) if rows else ""


def _ratio(value: dict[str, float] | None) -> str:
    return "-" if value is None else f"{value['value']:.4f} ({value['low']:.4f} .. {value['high']:.4f})"


def _interval_x100(value: dict[str, float | None] | None) -> str:
    if not value or value["value"] is None:
        return "undefined"
    return f"{100 * value['value']:.2f} ({100 * (value['low'] or 0):.1f} .. {100 * (value['high'] or 0):.1f})"


def _cold(entry: dict[str, Any]) -> str:
    return f"failed: {entry['error']}" if entry["error"] else _figure(entry["total_ms"].get("p50"))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
