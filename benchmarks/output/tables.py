"""The tables of what was measured beside the rounds, for the terminal; those that were not asked for are left out."""

from typing import Any

from qanet.commandline import table

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
        (label, *(_interval(entry["values"].get(key)) for key in _ACCURACIES))
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


def _interval(value: dict[str, float | None] | None) -> str:
    if not value or value["value"] is None:
        return "undefined"
    return f"{100 * value['value']:.2f} ({100 * (value['low'] or 0):.1f} .. {100 * (value['high'] or 0):.1f})"


def _cold(entry: dict[str, Any]) -> str:
    return f"failed: {entry['error']}" if entry["error"] else _figure(entry["total_ms"].get("p50"))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
