"""The document of a check as tables for a person."""

from typing import Any

from qanet.commandline import table


def render(document: dict[str, Any]) -> str:
    """Steps, kernels and parsers."""
    results = {step["name"]: step["result"] for step in document["steps"] if step["status"] == "ok"}
    parts = [_head(document, results.get("machine")), _steps(document["steps"])]
    if "kernels" in results:
        parts.append(_kernels(results["kernels"]))
    parsers = [result for name, result in results.items() if name.startswith("parser ")]
    if parsers:
        parts.append(_parsers(parsers))
    return "\n\n".join(parts)


def _head(document: dict[str, Any], machine: dict[str, Any] | None) -> str:
    facts = [document["gpu"], document["target"], document["date"]]
    if machine:
        driver = machine["gpus"][0]["driver_version"] if machine["gpus"] else "unknown"
        facts += [
            f"driver {driver} (CUDA {machine['driver_cuda']})",
            f"toolkit {machine['toolkit_cuda'] or 'none'}",
            *(f"{name} {version}" for name, version in machine["versions"].items()),
            f"commit {machine['git']}",
        ]
    return ", ".join(facts)


def _steps(steps: list[dict[str, Any]]) -> str:
    rows = []
    for step in steps:
        said = " ".join(str(step["message"] or _short(step["result"])).split())
        rows.append((step["name"], step["status"], step["seconds"], said[:200]))
    return table(rows, ("step", "status", "s", ""))


def _short(result: Any) -> str:
    """A result that fits a line: text, or a dict of plain values."""
    if isinstance(result, dict) and all(isinstance(value, (str, int)) for value in result.values()):
        return ", ".join(f"{key} {value}" for key, value in result.items())
    return result if isinstance(result, str) else ""


def _kernels(result: dict[str, Any]) -> str:
    rows: list[tuple[object, ...]] = []
    for row in result["rows"]:
        if row["status"] != "ok":
            rows.append((row["case"], row["kernel"], *("-",) * 6, f"{row['status']}: {row['reason']}"))
            continue
        speed_up = row.get("speed_up")
        rows.append(
            (
                row["case"],
                row["kernel"],
                row["cold_ms"]["p50"],
                row["warm_ms"]["p50"],
                row["floor_ms"],
                row["cold_times_floor"],
                row["warm_times_floor"],
                speed_up if speed_up else "-",
                row.get("torch") or "",
            )
        )
    header = (
        "case",
        "kernel",
        "cold p50 ms",
        "warm p50 ms",
        "floor ms",
        "cold / floor",
        "warm / floor",
        "over torch",
        "",
    )
    return f"a large copy moves {result['copy_bytes_per_second'] / 1e9:.0f} GB/s\n{table(rows, header)}"


def _parsers(results: list[dict[str, Any]]) -> str:
    rows = [
        (
            result["runtime"],
            result["precision"],
            row["people"],
            *(row["latency_ms"][key] for key in ("p50", "p90", "p99")),
            row["latency_ms"]["n"],
            "; ".join(f"{name} {value:.3g}" for name, value in row["stages_ms"].items()),
            f"{row['labels_agree']:.2%}",
            " ".join(map(str, result["graph_batches"])) or "none",
        )
        for result in results
        for row in result["rows"]
    ]
    header = (
        "runtime",
        "precision",
        "people",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "n",
        "stage medians ms",
        "labels as FP32 on the CPU",
        "graphs",
    )
    return f"whole parser, frame of 1080p in host memory to people, boxes given\n{table(rows, header)}"
