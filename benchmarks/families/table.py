"""The families as Markdown: one row a network and precision."""

from collections.abc import Mapping
from typing import Any

_NOT = "-"
_COLUMNS = (
    "network",
    "precision",
    "multiply-adds in",
    "graph MB",
    "engine MB",
    "mIoU",
    "network ms",
    "over FP32 (95%)",
)


def markdown(document: Mapping[str, Any]) -> str:
    """The table with its machine above it, and what was refused below; milliseconds are medians."""
    cpu, source = document["machine"]["cpu"], document["input"]
    tails = _tails(document)
    has_baseline = any(family["baseline_ms"] for family in document["families"])
    header = list(_COLUMNS)
    header += [f"frame ms, {tail} tail" for tail in tails] + (["tail alone ms"] if "kernel" in tails else [])
    header += [f"over PyTorch, {tail} tail (95%)" for tail in tails] if has_baseline else []
    lines = [_cells(header), _cells(["---"] * len(header))]
    for family in document["families"]:
        lines += [_cells(_row(family, row, tails, has_baseline)) for row in family["rows"]]
        if family["baseline_ms"]:
            cells = [f"{family['model']}, PyTorch", "fp32", *[_NOT] * 6, _ms(family["baseline_ms"])]
            lines.append(_cells(cells + [_NOT] * (len(header) - len(cells))))
    head = (
        f"{cpu['model'] or 'an unnamed CPU'}, {cpu['usable_cpus']} CPUs, threads {document['threads'] or 'default'}, "
        f"load average {(document['machine']['load_average'] or [None])[0]}; {source['name']}: {source['people']} "
        f"people in {source['frames_with_people']} frames of {source['image_sizes_hw']}; medians of {document['of']}"
    )
    rounds = "; ".join(
        f"{f['model']} " + ", ".join(f"{name} {s['rounds']} rounds" for name, s in f["sessions"].items())
        for f in document["families"]
    )
    refused = [f"not timed: {what}: {why}" for f in document["families"] for what, why in f["refused"].items()]
    warnings = [f"warning: {line}" for line in document["warnings"]]
    return "\n".join([head, rounds, "", *lines, "", *refused, *warnings]).rstrip()


def _row(family: Mapping[str, Any], row: Mapping[str, Any], tails: list[str], has_baseline: bool) -> list[str]:
    shares = row["computes_in"] or {}
    total = sum(shares.values()) or 1
    told = ", ".join(f"{name} {value / total:.0%}" for name, value in shares.items() if value / total >= 0.005)
    cells = [
        family["model"],
        row["precision"],
        told or _NOT,
        _megabytes(row["graph_bytes"]),
        _megabytes(row["engine_bytes"]),
        _NOT if row["miou"] is None else f"{100 * row['miou']:.2f}",
        _ms(row["network_ms"]),
        "1" if row["precision"] == "fp32" else _ratio(row["network_speed_up"]),
    ]
    cells += [_ms(row["frame_ms"].get(tail)) for tail in tails]
    cells += [_ms(row["tail_ms"])] if "kernel" in tails else []
    return cells + ([_ratio(row["over_baseline"].get(tail)) for tail in tails] if has_baseline else [])


def _tails(document: Mapping[str, Any]) -> list[str]:
    found = [tail for family in document["families"] for row in family["rows"] for tail in row["frame_ms"]]
    return list(dict.fromkeys(found))


def _cells(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ms(figures: Mapping[str, Any] | None) -> str:
    return _NOT if not figures or not figures.get("n") else f"{figures['p50']:.3g}"


def _ratio(value: Mapping[str, float] | None) -> str:
    return _NOT if value is None else f"{value['value']:.2f} ({value['low']:.2f} to {value['high']:.2f})"


def _megabytes(count: int | None) -> str:
    return _NOT if count is None else f"{count / 1e6:.1f}"
