"""What was timed: stages, the video pipeline, every target, and the scope of it all."""

from typing import Any

from qanet.benchmarks.report.charts import Bar, bars
from qanet.benchmarks.report.markup import Safe, escape, paragraph, section, table, tag
from qanet.benchmarks.report.values import NOT_MEASURED, milliseconds, precision_in, rate

_FIGURES = ("p50", "p90", "p95", "p99", "max", "mad")
_NO_PEOPLE = ("null", "anchor", "pipeline")
_BAR_NOTE = "Solid: p50 (the figure). Pale: to p90. Line: to p99."


def stages(document: dict[str, Any]) -> Safe:
    """The parts of the whole-parser target, per precision."""
    by_stage: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for precision, measured in document.get("stages", {}).items():
        for stage, figures in measured.items():
            by_stage.setdefault(stage, []).append((precision, figures))
        whole = next((e.get("parser_ms") for e in document.get("comparison", []) if e["precision"] == precision), None)
        if whole:
            by_stage.setdefault("whole frame", []).append((precision, whole))
    if "whole frame" in by_stage:
        by_stage["whole frame"] = by_stage.pop("whole frame")  # last, whatever the stages are called
    source = document.get("input", {})
    before = [
        f"{name} p50 {milliseconds(source[key]['p50'])} ms"
        for key, name in (("decode_ms", "decoding a frame"), ("detect_ms", f"detection ({source.get('detector')})"))
        if source.get(key, {}).get("n")
    ]
    note = f"While the samples were gathered, outside the interleaved timing: {', '.join(before)}." if before else None
    people = source.get("people_per_frame")
    words = f"{people:.3g} people a frame on average. {_BAR_NOTE}" if people else _BAR_NOTE
    return section(
        "stages",
        "Stages of a frame",
        _staged("Stages of the whole parser", by_stage, words),
        paragraph(note, class_="note") if note else None,
    )


def pipeline(document: dict[str, Any]) -> Safe | None:
    """The summary of a `qanet parse` run, where one was given."""
    parse = document.get("parse")
    if not isinstance(parse, dict):
        return None
    precision = str(parse.get("precision", ""))
    by_stage = {
        str(stage): [(precision, figures)] for stage, figures in (parse.get("stages_ms") or {}).items() if figures
    }
    frames, people = parse.get("frames"), parse.get("people")
    facts = [
        f"{_known(frames)} frames",
        f"{people / frames:.2f} people a frame" if people is not None and frames else None,
        f"{_known(parse.get('frames_per_second'))} frames/s end to end",
        f"model {_known(parse.get('model'))}",
        f"{precision} on {_known(parse.get('runtime'))}",
        f"detector {_known(parse.get('detector'))}",
        "interrupted" if parse.get("interrupted") else None,
    ]
    note = f"Decoding and writing run in threads of their own, beside the parsing. {_BAR_NOTE}"
    return section(
        "pipeline",
        "The whole video",
        paragraph(", ".join(f for f in facts if f) + "."),
        _staged("Stages of qanet parse", by_stage, note),
    )


def video(document: dict[str, Any]) -> Safe | None:
    """The video pipeline as a target, stage by stage."""
    found = document.get("pipeline") or {}
    by_stage: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for label, entry in found.items():
        for stage, figures in (entry.get("stages_ms") or {}).items():
            by_stage.setdefault(stage, []).append((label, figures))
    if not by_stage:
        return None
    rates = [
        f"{label} {milliseconds(entry['ms_per_frame'].get('p50'))} ms a frame"
        for label, entry in found.items()
        if entry["ms_per_frame"].get("n")
    ]
    words = f"From file to file, decoding, detection, painting and encoding included: {', '.join(rates)}."
    note = f"Decode and write run in threads of their own; write is paint and encode. {_BAR_NOTE}"
    return section("video", "The video pipeline", paragraph(words), _staged("Stages of the pipeline", by_stage, note))


def _staged(caption: str, by_stage: dict[str, list[tuple[str, dict[str, Any]]]], note: str) -> Safe:
    """Bars beside a table for stages, each with (precision, figures) in milliseconds."""
    known = {stage: [(p, f) for p, f in entries if f.get("n")] for stage, entries in by_stage.items()}
    known = {stage: entries for stage, entries in known.items() if entries}
    if not known:
        return paragraph(f"{caption}: {NOT_MEASURED}.", class_="quiet")
    groups = [
        (stage, [Bar(p, precision_in(p), f.get("p50", 0.0), f.get("p90", 0.0), f.get("p99", 0.0)) for p, f in entries])
        for stage, entries in known.items()
    ]
    rows = [
        [stage, p, *(milliseconds(f.get(key)) for key in ("p50", "p90", "p99")), f["n"]]
        for stage, entries in known.items()
        for p, f in entries
    ]
    header = ("stage", "precision", "p50 ms", "p90 ms", "p99 ms", "samples")
    chart = tag("figure", bars(caption, groups), tag("figcaption", note))
    return tag("div", chart, table(f"{caption}, milliseconds", header, rows, 2), class_="side")


def targets(document: dict[str, Any]) -> Safe:
    """Every target with its figures, the harness's own among them."""
    rows = []
    for target in document.get("targets", []):
        figures = target.get("latency_ms") or {}
        state = target["status"] + (f": {target['error']}" if target.get("error") else "")
        rows.append(
            [
                target["name"],
                tag("span", state, class_="wrap") if target.get("error") else state,
                *(milliseconds(figures.get(key)) for key in _FIGURES),
                "" if target.get("kind") in _NO_PEOPLE else rate(target.get("people_per_second")),
                figures.get("n", 0),
            ]
        )
    timing = document.get("timing", {})
    header = ("target", "status", "p50", "p90", "p95", "p99", "max", "MAD", "people/s", "samples")
    note = (
        f"{_known(timing.get('rounds'))} interleaved rounds in {_known(timing.get('seconds'))} s after a warm-up; "
        "MAD is the median absolute deviation from the median."
    )
    if (timing.get("rounds") or 0) < 100:
        note += " Of fewer than 100 samples the p99 is little else than the largest."
    return section("targets", "All targets", table("Latencies in milliseconds", header, rows, 2), paragraph(note))


def scope(document: dict[str, Any]) -> Safe:
    """What was timed and what was not."""
    timing = document.get("timing", {})
    timed = [tag("li", tag("strong", kind), ": ", words) for kind, words in (timing.get("timed") or {}).items()]
    left_out = [tag("li", words) for words in timing.get("not_timed") or []]
    return section(
        "scope",
        "What was timed, and what was not",
        paragraph(f"Clock: {_known(timing.get('clock'))}. Order: {_known(timing.get('order'))}."),
        tag("h3", "Timed"),
        tag("ul", *timed, class_="scope"),
        tag("h3", "Not timed"),
        tag("ul", *left_out, class_="scope"),
    )


def _known(value: object) -> Safe | str:
    return NOT_MEASURED if value is None else escape(value)
