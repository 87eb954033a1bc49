"""`qanet benchmark --compare old.json new.json`: the table, and the exit code for CI."""

import json
from pathlib import Path
from typing import Any

from qanet.benchmarks.compare.results import compare_results, read_results
from qanet.commandline import table
from qanet.errors import QanetError


def run_compare(old: str, new: str, fail_above: float, resolution: float, as_json: bool) -> int:
    """Compare two results.json and print the rows; the last line of the text is one line of JSON.

    Returns:
        1 with a regression beyond `fail_above`, else 0.
    Raises:
        QanetError: a file that is no result of this schema, or shares for which there is no sense.
    """
    for name, value in (("--fail-above", fail_above), ("--resolution", resolution)):
        if not 0 <= value < 10:
            raise QanetError(f"bad {name}", expected="a share such as 0.05", got=value)
    found = compare_results(read_results(Path(old)), read_results(Path(new)), fail_above, resolution)
    print(json.dumps(found, indent=1, allow_nan=False) if as_json else compare_text(found))
    return 1 if found["regressions"] else 0


def compare_text(found: dict[str, Any]) -> str:
    """The comparison for a person, and one line of JSON at its end."""
    rows: list[tuple[object, ...]] = []
    for row in found["rows"]:
        ratio = row["ratio"]
        words = f"{ratio['value']:.4f} ({_bound(ratio['low'])} .. {_bound(ratio['high'])})" if ratio else "-"
        verdict = row["verdict"] + (f": {row['reason']}" if row["reason"] else "")
        mark = "REGRESSION" if row["regression"] else ""
        rows.append((row["target"], row["metric"], f"{row['old']:.4g}", f"{row['new']:.4g}", words, verdict, mark))
    header = ("target", "metric", "old", "new", "new / old (95%)", "verdict", "")
    parts = [table(rows, header)]
    if not found["same_machine"]:
        parts.append("different machines: latencies are compared as ratios to the PyTorch form of the method")
    parts += [f"only in the old result: {', '.join(found['only_old'])}"] if found["only_old"] else []
    parts += [f"only in the new result: {', '.join(found['only_new'])}"] if found["only_new"] else []
    counts = {
        v: sum(row["verdict"] == v for row in found["rows"]) for v in sorted({r["verdict"] for r in found["rows"]})
    }
    summary = {"regressions": found["regressions"], "fail_above": found["fail_above"], "verdicts": counts}
    return "\n\n".join([*parts, json.dumps(summary)])


def _bound(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
