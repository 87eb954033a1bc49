"""Sections of what was measured beside the rounds; each is left out where it was not asked for."""

from typing import Any

from qanet.benchmarks.report.lines import Curve, curves, distributions
from qanet.benchmarks.report.markup import Safe, paragraph, section, table, tag
from qanet.benchmarks.report.values import NOT_MEASURED, label_of, milliseconds, plain, share

_ACCURACIES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "ap_p": "AP^p",
    "ap_r": "AP^r",
    "rank_correlation_quality": "rank correlation of Q",
    "ece_quality": "calibration error of Q",
}
_PLOTTED_KINDS = (("engine", "Engine, one crop"), ("parser", "Whole frame"), ("baseline", "Whole frame in PyTorch"))
_BLOCKS_SHOWN = 12


def accuracy(document: dict[str, Any]) -> Safe | None:
    """Metrics with their intervals over the images."""
    measured = document.get("accuracy") or {}
    if not measured:
        return None
    rows = []
    for label, entry in measured.items():
        cells = [_with_interval(entry["values"].get(key)) for key in _ACCURACIES]
        rows.append([label, plain(entry.get("images")), *cells])
    note = next(iter(measured.values())).get("note", "")
    header = ("variant", "images", *_ACCURACIES.values())
    return section(
        "accuracy",
        "Accuracy, measured here",
        table("Value and 95% interval, from drawing the images again", header, rows),
        paragraph(f"{note}. The interval tells what other images of the same kind would give.", class_="note"),
    )


def models(document: dict[str, Any]) -> Safe | None:
    """The models of one run against the first of them."""
    rows = [
        [
            f"{row['new']} over {row['old']}",
            row["kind"],
            row["of"],
            _ratio(row["ratio"]),
            tag("span", row["verdict"] + (f": {row['reason']}" if row["reason"] else ""), class_="wrap"),
        ]
        for row in document.get("models") or []
    ]
    header = ("models", "target", "of", "new / old (95%)", "verdict")
    return section("models", "Models in the same rounds", table("Medians", header, rows, 3)) if rows else None


def spread(document: dict[str, Any]) -> Safe | None:
    """How the latencies are distributed, engines and whole frames."""
    figures = []
    for kind, title in _PLOTTED_KINDS:
        rows = [
            (t.get("variant") or t["name"], t.get("precision"), t["samples_ms"])
            for t in document.get("targets", [])
            if t.get("kind") == kind and t.get("samples_ms") and (kind != "engine" or t.get("batch") == 1)
        ]
        if rows:
            figures.append(
                tag(
                    "figure",
                    distributions(f"Distribution of latencies: {title}", rows),
                    tag("figcaption", f"{title}. Line: the median."),
                )
            )
    return section("spread", "Distributions", tag("div", *figures, class_="pair")) if figures else None


def sweeps(document: dict[str, Any]) -> Safe | None:
    """Latency over people and over the image's area."""
    found = document.get("sweeps") or {}
    precisions = {label_of(entry): entry["precision"] for entry in document.get("comparison", [])}
    figures = []
    for key, x_name, words in (
        ("persons", "people in the frame", "The frame with most people, its boxes repeated and shifted."),
        ("area", "megapixels of the image", "The same frame made smaller and larger; the people grow with it."),
    ):
        drawn = [
            Curve(label, precisions.get(label), [(p["x"], p["latency_ms"]["p50"]) for p in points])
            for label, points in (found.get(key) or {}).items()
        ]
        if drawn:
            figures.append(
                tag("figure", curves(f"Frame latency over {x_name}", drawn, x_name), tag("figcaption", words))
            )
    return section("sweeps", "How the time grows", tag("div", *figures, class_="pair")) if figures else None


def costs(document: dict[str, Any]) -> Safe | None:
    """Opening, cold start, memory and energy by variant."""
    labels = [label_of(e) for e in document.get("comparison", []) if e.get("tail") != "pytorch"]
    opened, cold = document.get("open_ms") or {}, document.get("cold_start") or {}
    energy, memory = document.get("energy") or {}, document.get("memory") or {}
    if not labels or not (opened or cold or energy or memory):
        return None
    extra = {
        t.get("variant"): t.get("peak_extra_mib") for t in document.get("targets", []) if t.get("kind") == "parser"
    }
    rows = [
        [
            label,
            milliseconds(opened.get(label)),
            _cold(cold.get(label)),
            _figure(extra.get(label)),
            *_energy(energy, label),
        ]
        for label in labels
    ]
    header = (
        "variant",
        "engine opened, ms",
        "cold start, ms",
        "peak beyond resident, MiB",
        "mJ a frame",
        "mJ a person",
    )
    words = [f"Most resident memory of the whole run: {_figure(memory.get('process_peak_mib'))} MiB."]
    words += ["A cold start is a fresh process until its first people."] if cold else []
    words += [_energy_note(energy)] if energy else []
    return section("costs", "Start, memory, energy", table("By variant", header, rows), paragraph(" ".join(words)))


def pieces(document: dict[str, Any]) -> Safe | None:
    """Small pieces beside the floors that this machine allows."""
    micro = document.get("micro")
    if not micro:
        return None
    rows = [
        [
            row["target"],
            row["note"],
            milliseconds(row["latency_ms"].get("p50")),
            milliseconds(row["floor_ms"]),
            row["floor_by"],
            NOT_MEASURED if row["times_floor"] is None else f"{row['times_floor']:.1f}\u00d7",
        ]
        for row in micro["rows"]
    ]
    rates = ", ".join(f"{p} {rate / 1e9:.0f} G/s" for p, rate in micro["multiply_adds_per_second"].items())
    words = (
        f"Floors: a large copy moves {micro['copy_bytes_per_second'] / 1e9:.1f} GB/s (one thread); multiply-adds of a "
        f"large convolution: {rates}."
    )
    header = ("piece", "what it cannot do without", "p50 ms", "floor ms", "floor by", "distance")
    return section(
        "pieces", "Pieces and floors", table("Milliseconds", header, rows, 2), paragraph(words, class_="note")
    )


def profiles(document: dict[str, Any]) -> Safe | None:
    """Time by block of the network and precision."""
    tables = []
    for label, profile in (document.get("profile") or {}).items():
        if not profile.get("source"):
            tables.append(paragraph(f"{label}: {NOT_MEASURED}: {profile.get('reason')}.", class_="quiet"))
            continue
        rows = [
            [
                b["block"],
                milliseconds(b["ms"]),
                share(b["share"], 1),
                b["layers"],
                ", ".join(f"{p} {milliseconds(ms)}" for p, ms in b["ms_by_precision"].items()),
            ]
            for b in profile["blocks"][:_BLOCKS_SHOWN]
        ]
        rest = len(profile["blocks"]) - len(rows)
        caption = f"{label}: {milliseconds(profile['total_ms'])} ms, {profile['source']}"
        caption += f"; {rest} smaller blocks are in results.json" if rest > 0 else ""
        tables.append(table(caption, ("block", "ms", "share", "layers", "ms by precision"), rows))
    trace = document.get("trace")
    if trace:
        words = f"The threads of the video pipeline ({trace['variant']}) over time are in {trace['file']}: open it in "
        tables.append(paragraph(words + "chrome://tracing or ui.perfetto.dev.", class_="note"))
    return section("profiles", "Where the time goes", *tables) if tables else None


def mlperf(document: dict[str, Any]) -> Safe | None:
    """What MLPerf's load generator says."""
    found = document.get("mlperf") or {}
    rows = [
        [
            label,
            entry["scenario"],
            "VALID" if entry["valid"] else "INVALID",
            milliseconds(entry.get("p90_ms")),
            _figure(entry.get("samples_per_second")),
            entry["samples"],
        ]
        for label, entry in found.items()
    ]
    header = ("variant", "scenario", "by its own rules", "90th percentile, ms", "samples/s", "samples")
    return (
        section("mlperf", "MLPerf loadgen", table("The engine alone, one crop a sample", header, rows, 3))
        if rows
        else None
    )


def _ratio(value: dict[str, float] | None) -> str:
    return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})" if value else NOT_MEASURED


def _with_interval(value: dict[str, float | None] | None) -> str:
    if not value or value["value"] is None:
        return NOT_MEASURED
    return f"{100 * value['value']:.2f} ({100 * (value['low'] or 0):.1f} to {100 * (value['high'] or 0):.1f})"


def _cold(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return NOT_MEASURED
    return f"failed: {entry['error']}" if entry["error"] else milliseconds(entry["total_ms"].get("p50"))


def _energy(energy: dict[str, Any], label: str) -> list[str]:
    entry = (energy.get("by_variant") or {}).get(label)
    if not entry or entry.get("status") != "measured":
        return ["unavailable" if energy else NOT_MEASURED] * 2
    return [f"{entry['mj_per_frame']:.1f}", f"{entry['mj_per_person']:.1f}"]


def _energy_note(energy: dict[str, Any]) -> str:
    if energy.get("status") != "measured":
        return f"Energy is unavailable: {energy.get('reason')}."
    broken = [f"{k}: {v['reason']}" for k, v in energy["by_variant"].items() if v.get("status") != "measured"]
    words = f"Energy by {energy['source']}, above {energy['idle_w']:.1f} W idle, which is subtracted."
    return " ".join([words, *(f"{line}." for line in broken)])


def _figure(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.1f}"
