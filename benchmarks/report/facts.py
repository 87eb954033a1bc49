"""The report's sections on costs and on what was measured where: memory, energy, profiles, engines, files, machine.

Every function takes the document of results.json. What is None or empty has no section on the page.
"""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from qanet.benchmarks.report.timings import NARROW_TO_WIDE, Document, Rows, label_of, shares_in_words
from qanet.pages.charts import share_bar
from qanet.pages.numbers import NOT_MEASURED, mebibytes, milliseconds, plain, share, tenths

_BLOCKS_SHOWN = 12
_CLOCKS = {"clock_mhz": "now", "max_clock_mhz": "at most"}
_COUNTS = ("usable_cpus", "logical_cpus", "physical_cores")


def costs(document: Document) -> dict[str, Any] | None:
    """Opening, cold start, memory and energy by variant."""
    labels = [label_of(e) for e in document.get("comparison", []) if e.get("tail") != "pytorch"]
    opened, cold, energy, memory = (document.get(k) or {} for k in ("open_ms", "cold_start", "energy", "memory"))
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
            tenths(extra.get(label)),
            *_energy(energy, label),
        ]
        for label in labels
    ]
    return {
        "rows": rows,
        "peak": tenths(memory.get("process_peak_mib")),
        "cold": bool(cold),
        "energy": _energy_note(energy) if energy else "",
    }


def _cold(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return NOT_MEASURED
    return f"failed: {entry['error']}" if entry["error"] else milliseconds(entry["total_ms"].get("p50"))


def _energy(energy: Mapping[str, Any], label: str) -> list[str]:
    entry = (energy.get("by_variant") or {}).get(label)
    if not entry or entry.get("status") != "measured":
        return ["unavailable" if energy else NOT_MEASURED] * 2
    return [f"{entry['mj_per_frame']:.1f}", f"{entry['mj_per_person']:.1f}"]


def _energy_note(energy: Mapping[str, Any]) -> str:
    if energy.get("status") != "measured":
        return f"Energy is unavailable: {energy.get('reason')}."
    broken = [f"{k}: {v['reason']}" for k, v in energy["by_variant"].items() if v.get("status") != "measured"]
    words = f"Energy by {energy['source']}, above {energy['idle_w']:.1f} W idle, which is subtracted."
    return " ".join([words, *(f"{line}." for line in broken)])


def pieces(document: Document) -> dict[str, Any] | None:
    """Single stages beside the least time that this machine's bandwidth and arithmetic allow."""
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
    return {"rows": rows, "copy_rate": f"{micro['copy_bytes_per_second'] / 1e9:.1f}", "rates": rates}


def profiles(document: Document) -> list[dict[str, Any]]:
    """Time by block of the network, per variant; a variant without a profiler has a reason in place of rows."""
    found: list[dict[str, Any]] = []
    for label, profile in (document.get("profile") or {}).items():
        if not profile.get("source"):
            found.append({"label": label, "reason": profile.get("reason"), "rows": []})
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
        found.append({"label": label, "caption": caption, "rows": rows})
    return found


def mlperf(document: Document) -> Rows:
    """The verdicts and figures of MLPerf's load generator."""
    return [
        [
            label,
            entry["scenario"],
            "VALID" if entry["valid"] else "INVALID",
            milliseconds(entry.get("p90_ms")),
            tenths(entry.get("samples_per_second")),
            entry["samples"],
        ]
        for label, entry in (document.get("mlperf") or {}).items()
    ]


def bundles_of(document: Document) -> list[dict[str, Any]]:
    """The descriptions of the bundles that were measured."""
    return document.get("bundles") or [document.get("bundle", {})]


def engines(document: Document) -> dict[str, Any]:
    """The built engines, with the precisions that their layers run in, and the notes of that census."""
    bundles = bundles_of(document)
    entries = [
        ({**entry, "model": bundle.get("name") if len(bundles) > 1 else None})
        for bundle in bundles
        for entry in bundle.get("engines") or []
    ]
    rows: Rows = []
    notes = []
    for entry in sorted(entries, key=_by_runtime_wide_first):
        census, precision = entry.get("census") or {}, entry.get("precision")
        model = f"{entry['model']} " if entry.get("model") else ""
        rows.append(
            [
                f"{model}{precision}, {entry.get('runtime')} {entry.get('version', '')}",
                ", ".join(entry.get("targets") or []),
                _shares(census.get("multiply_add_shares"), "multiply-adds"),
                _shares(census.get("layer_shares"), "layers"),
                plain(census.get("reformats")),
                mebibytes(entry.get("bytes")),
            ]
        )
        if census.get("note"):
            notes.append(f"{precision}: {census['note']}")
    return {"rows": rows, "notes": notes}


def _by_runtime_wide_first(entry: Mapping[str, Any]) -> tuple[str, int]:
    precision = entry.get("precision")
    return str(entry.get("runtime")), -NARROW_TO_WIDE.index(precision) if precision in NARROW_TO_WIDE else 1


def _shares(shares: Mapping[str, float] | None, of: str) -> str:
    if not shares:
        return NOT_MEASURED
    words = shares_in_words(shares)
    ordered = {precision: shares[precision] for precision in NARROW_TO_WIDE if precision in shares}
    return share_bar(f"{of}: {words}", ordered) + Markup('<span class="shares">{}</span>').format(words)


def files(document: Document) -> list[dict[str, Any]]:
    """Per bundle: its files with the first digits of their hashes, and its settings and provenance."""
    found = []
    for bundle in bundles_of(document):
        graphs = {file: precision for precision, file in (bundle.get("graphs") or {}).items()}
        rows = [
            [
                name,
                f"{graphs[name]} graph" if name in graphs else "",
                Markup("<code>{}</code>").format(str(entry.get("sha256", ""))[:16]),
                mebibytes(entry.get("bytes")),
            ]
            for name, entry in (bundle.get("files") or {}).items()
        ]
        settings = [
            ("QAM exponents (box, IoU, pixel)", plain(bundle.get("qam_weights"))),
            ("pixel score threshold", plain(bundle.get("pixel_score_threshold"))),
            *((key, plain(value)) for key, value in (bundle.get("made") or {}).items()),
        ]
        found.append({"name": plain(bundle.get("name")), "rows": rows, "facts": settings})
    return found


def machine(document: Document) -> list[tuple[str, str]]:
    """Names and values: processor, memory, load, GPUs, versions."""
    about = document.get("machine", {})
    cpu, memory, after = (about.get(key) or {} for key in ("cpu", "memory", "after"))
    clocks = [f"{cpu[key]:.0f} MHz {name}" for key, name in _CLOCKS.items() if cpu.get(key)]
    rows = [
        ("CPU", plain(cpu.get("model"))),
        ("CPUs usable / logical / cores", " / ".join(plain(cpu.get(key)) for key in _COUNTS)),
        ("instruction sets", plain(cpu.get("isa"))),
        ("clock", ", ".join(clocks) or NOT_MEASURED),
        ("governor", plain(cpu.get("governor"))),
        ("memory", f"{memory['total_gib']:.1f} GiB" if memory.get("total_gib") else NOT_MEASURED),
        ("power mode, profile", f"{plain(about.get('power_mode'))}, {plain(cpu.get('platform_profile'))}"),
        ("turbo", plain(cpu.get("turbo"))),
        ("temperatures before, \u00b0C", plain(about.get("temperatures_c"))),
        ("temperatures after, \u00b0C", plain(after.get("temperatures_c"))),
        ("throttling events meanwhile", plain(after.get("throttled"))),
        ("load average before", plain(about.get("load_average"))),
        ("system", plain(about.get("system"))),
        ("commit", plain(about.get("git"))),
    ]
    gpus = about.get("gpus") or []
    rows += [(f"GPU {index}", plain(gpu)) for index, gpu in enumerate(gpus)] or [("GPU", "none found")]
    return rows + [(name, str(version)) for name, version in (about.get("versions") or {}).items()]
