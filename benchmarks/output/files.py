"""A document as files and as text: results.json, results.csv, the table and the summary line."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from qanet.benchmarks.output.tables import more_tables
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
