"""Results as files and as text: results.json, results.csv, the tables on the terminal, the summary line."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from qanet.benchmarks.results import Results
from qanet.benchmarks.schema import ColdStart, Interval, Latency, Metric
from qanet.commandline import table
from qanet.files import write_text

_FIGURES = ("n", "p50", "p90", "p95", "p99", "max", "mean", "mad")
_COLUMNS = ("name", "kind", "variant", "precision", "runtime", "batch", "session", "status", "error")
_RATES = ("calls_per_second", "people_per_second", "peak_extra_mib")
_ACCURACIES = ("miou", "pixel_accuracy", "ap_p", "ap_r", "rank_correlation_quality", "ece_quality")


def write_results(folder: Path, results: Results) -> None:
    """results.json and results.csv into `folder`, each whole or not at all."""
    write_text(folder / "results.json", json.dumps(results.to_json(), indent=1, allow_nan=False) + "\n")
    write_text(folder / "results.csv", csv_text(results))


def csv_text(results: Results) -> str:
    """A row per target, latencies in milliseconds, empty cells for what was not measured."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*_COLUMNS, "n", *(f"{figure}_ms" for figure in _FIGURES[1:]), *_RATES])
    for target in results.targets:
        figures = [getattr(target.latency_ms, figure) for figure in _FIGURES]
        cells, rates = ([getattr(target, name) for name in names] for names in (_COLUMNS, _RATES))
        writer.writerow([*cells, *figures, *rates])
    return buffer.getvalue()


def text(results: Results, folder: Path | None) -> str:
    """The tables for the terminal, and where the files are."""
    source, timing = results.input, results.timing
    head = (
        f"{results.bundle['name']} on {results.machine.cpu.model or 'an unnamed CPU'}, {timing.rounds} rounds in "
        f"{timing.seconds:.1f} s, {source.people} people in {source.frames_with_people} of {source.frames} "
        f"frames of {source.name}"
    )
    optional = (_models, _accuracy, _costs, _pipeline, _energy, _pieces, _mlperf)
    parts = [head, _targets(results), _comparison(results), *(part(results) for part in optional), _scope(results)]
    if folder:
        parts.append(f"wrote {folder / 'report.html'}, {folder / 'results.json'}, {folder / 'results.csv'}")
    return "\n\n".join(part for part in parts if part)


def summary_line(results: Results, folder: Path | None) -> str:
    """The measurement on one line of JSON."""
    variants = {
        row.label: {
            "status": row.status,
            "engine_p50_ms": row.engine_ms.p50 if row.engine_ms else None,
            "parser_p50_ms": row.parser_ms.p50 if row.parser_ms else None,
            "speed_up": row.engine_speed_up,
            "miou": row.accuracy.miou,
            "agreement_miou": row.agreement.miou if row.agreement else None,
            "over_baseline": row.over_baseline.to_json()["value"] if row.over_baseline else None,
            "pareto": row.pareto,
        }
        for row in results.comparison
    }
    summary = {"bundle": results.bundle["name"], "variants": variants, "rounds": results.timing.rounds}
    report = str(folder / "report.html") if folder else None
    return json.dumps(summary | {"interrupted": results.timing.interrupted, "report": report})


def _targets(results: Results) -> str:
    rows: list[tuple[object, ...]] = []
    for target in results.targets:
        figures = target.latency_ms
        values = (figures.p50, figures.p90, figures.p95, figures.p99, figures.max, figures.mad)
        cells = ["not measured" if value is None else f"{value:.4g}" for value in values]
        interval = target.p50_interval_ms
        bounds = f"{interval.low:.4g} .. {interval.high:.4g}" if interval else "-"
        state = f"{target.status}: {target.error}" if target.error else target.status
        rows.append((target.name, *cells, bounds, _figure(target.calls_per_second), figures.n, state))
    header = ("target", "p50 ms", "p90 ms", "p95 ms", "p99 ms", "max ms", "MAD ms", "p50 95%", "calls/s", "n", "")
    return table(rows, header)


def _comparison(results: Results) -> str:
    rows: list[tuple[object, ...]] = []
    for row in results.comparison:
        agreement = row.agreement
        rows.append(
            (
                row.label,
                _times(row.engine_speed_up),
                _times(row.over_baseline.value if row.over_baseline else None),
                _share(row.accuracy.miou),
                _share(row.accuracy.pixel_accuracy),
                _share(agreement.pixels if agreement else None),
                _share(agreement.foreground if agreement else None),
                _share(agreement.miou if agreement else None),
                "-" if row.pareto is None else "yes" if row.pareto else "no",
            )
        )
    agreement_header = ("agree all", "agree foreground", "agree mIoU")
    header = ("variant", "engine speed-up", "over PyTorch", "mIoU", "pixel acc.", *agreement_header, "Pareto front")
    return table(rows, header)


def _scope(results: Results) -> str:
    timed = [f"  timed, {kind}: {words}" for kind, words in results.timing.timed.items()]
    return "\n".join([*timed, *(f"  not timed: {words}" for words in results.timing.not_timed)])


def _models(results: Results) -> str:
    rows = [
        (
            f"{row.new} over {row.old}",
            row.kind,
            row.of,
            _ratio(row.ratio),
            row.verdict + (f": {row.reason}" if row.reason else ""),
        )
        for row in results.models
    ]
    return _optional(rows, ("models in the same rounds", "target", "of", "new / old (95%)", "verdict"))


def _accuracy(results: Results) -> str:
    rows = [
        (label, *(_metric(entry.values.get(key)) for key in _ACCURACIES)) for label, entry in results.accuracy.items()
    ]
    header = ("accuracy, x 100 (95% over images)", "mIoU", "pixel acc.", "AP^p", "AP^r", "rank corr. Q", "ECE Q")
    return _optional(rows, header)


def _costs(results: Results) -> str:
    cold = results.cold_start or {}
    extra = {target.variant: target.peak_extra_mib for target in results.targets if target.kind == "parser"}
    rows = [
        (label, _figure(ms), _cold(cold[label]) if label in cold else "not measured", _figure(extra.get(label)))
        for label, ms in results.open_ms.items()
    ]
    peak = _figure(results.memory.process_peak_mib if results.memory else None)
    header = ("start and memory", "engine opened ms", "cold start ms", f"MiB beyond resident (peak of all {peak})")
    return _optional(rows, header)


def _pipeline(results: Results) -> str:
    found = results.pipeline or {}
    stages = list(dict.fromkeys(stage for entry in found.values() for stage in entry.stages_ms))
    rows = [
        (
            label,
            _figure(entry.ms_per_frame.p50),
            *(_figure(entry.stages_ms.get(stage, Latency()).p50) for stage in stages),
        )
        for label, entry in found.items()
    ]
    return _optional(rows, ("video pipeline, p50 ms", "per frame", *stages))


def _energy(results: Results) -> str:
    energy = results.energy
    if not energy:
        return ""
    if energy.status != "measured":
        return f"energy: unavailable: {energy.reason}"
    rows = [
        (label, _figure(one.mj_per_frame), _figure(one.mj_per_person), _figure(one.watts), one.reason or "")
        for label, one in energy.by_variant.items()
    ]
    head = f"energy by {energy.source}, above {energy.idle_w or 0:.2f} W idle"
    return _optional(rows, (head, "mJ per frame", "mJ per person", "W", ""))


def _pieces(results: Results) -> str:
    rows = [
        (row.target, _figure(row.latency_ms.p50), _figure(row.floor_ms), row.floor_by, _figure(row.times_floor))
        for row in (results.micro.rows if results.micro else [])
    ]
    return _optional(rows, ("piece", "p50 ms", "floor ms", "floor by", "times the floor"))


def _mlperf(results: Results) -> str:
    rows = [
        (
            label,
            entry.scenario,
            "VALID" if entry.valid else "INVALID",
            _figure(entry.p90_ms),
            _figure(entry.samples_per_second),
        )
        for label, entry in (results.mlperf or {}).items()
    ]
    return _optional(rows, ("MLPerf loadgen", "scenario", "by its rules", "p90 ms", "samples/s"))


def _optional(rows: Sequence[tuple[object, ...]], header: tuple[str, ...]) -> str:
    """A table, or nothing where it would have no row."""
    return table(rows, header) if rows else ""


def _ratio(value: Interval | None) -> str:
    return "-" if value is None else f"{value.value:.4f} ({value.low:.4f} .. {value.high:.4f})"


def _metric(value: Metric | None) -> str:
    if value is None or value.value is None:
        return "undefined"
    return f"{100 * value.value:.2f} ({100 * (value.low or 0):.1f} .. {100 * (value.high or 0):.1f})"


def _cold(entry: ColdStart) -> str:
    return _figure(entry.total_ms.p50) if entry.total_ms else f"failed: {entry.error}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def _share(value: float | None) -> str:
    return "not measured" if value is None else f"{100 * value:.2f}%"
