"""What was timed: precisions against accuracy, stages, the video pipeline, every target, and the scope of it all."""

from typing import Any

from qanet.benchmarks.report.charts import Bar, Point, bars, scatter
from qanet.benchmarks.report.markup import Safe, escape, paragraph, section, table, tag
from qanet.benchmarks.report.values import NOT_MEASURED, milliseconds, rate, share, shares_in_words, times

_FIGURES = ("p50", "p90", "p95", "p99", "max", "mad")
_BAR_NOTE = "Solid: p50 (the figure). Pale: to p90. Line: to p99."


def trade_off(document: dict[str, Any]) -> Safe:
    """Latency of the precisions against their accuracy."""
    rows, points, notes = [], [], []
    for entry in document.get("comparison", []):
        rows.append(_compared(document, entry))
        miou, p50 = (entry.get("accuracy") or {}).get("miou"), (entry.get("engine_ms") or {}).get("p50")
        if miou is not None and p50:
            points.append(Point(entry["precision"], p50, miou))
        if miou is not None:
            notes.append(
                f"{entry['precision']}: {entry.get('accuracy_note') or 'the bundle does not say on which data'}"
            )
    if points:
        title = "Accuracy against latency: " + "; ".join(f"{p.precision} {p.x:.3g} ms, {p.y:.1%}" for p in points)
        figure: Safe = scatter(title, points, "engine latency, one crop, p50 (ms)", "val mIoU (%)")
        note = f"Accuracy from the bundle's card: {_merged(notes)}. The accuracy axis does not start at 0."
    else:
        figure = paragraph(f"Accuracy of this bundle: {NOT_MEASURED}, so there is nothing to plot.", class_="quiet")
        note = "Measure it with qanet val NAME.qanet --data DIR --save for each precision."
    header = (
        "precision", "multiply-adds in", "engine p50 ms", "engine p90 ms", "engine speed-up", "frame p50 ms",
        "frame speed-up", "val mIoU", "val pixel accuracy", "mIoU with FP32 labels",
    )  # fmt: skip
    caption = "Engine: one crop. Frame: crop, engine, tail and suppression for all people of a frame."
    chart = tag("figure", figure, tag("figcaption", note))
    return section("trade-off", "Latency against accuracy", table(caption, header, rows, 2), chart)


def _compared(document: dict[str, Any], entry: dict[str, Any]) -> list[object]:
    """A precision's row beside the scatter."""
    engine, parser = entry.get("engine_ms") or {}, entry.get("parser_ms") or {}
    accuracy, agreement = entry.get("accuracy") or {}, entry.get("agreement") or {}
    agrees = share(agreement.get("miou")) if agreement else _reference(document, entry["precision"])
    return [
        entry["precision"], _execution(entry.get("execution") or {}), milliseconds(engine.get("p50")),
        milliseconds(engine.get("p90")), times(entry.get("engine_speed_up")), milliseconds(parser.get("p50")),
        times(entry.get("parser_speed_up")), share(accuracy.get("miou")), share(accuracy.get("pixel_accuracy")), agrees,
    ]  # fmt: skip


def _execution(execution: dict[str, Any]) -> str:
    """What the multiply-adds really run in; else the type of what is not INT8; else that nobody looked."""
    if execution.get("multiply_add_shares"):
        return shares_in_words(execution["multiply_add_shares"])
    kind = execution.get("floating_point")
    return f"{NOT_MEASURED} (floating point: {kind})" if kind else NOT_MEASURED


def _merged(notes: list[str]) -> str:
    """One note for all precisions where they say the same."""
    said = {note.partition(": ")[2] for note in notes}
    return said.pop() if len(said) == 1 else "; ".join(notes)


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
        "stages", "Stages of a frame", _staged("Stages of the whole parser", by_stage, words),
        paragraph(note, class_="note") if note else None,
    )  # fmt: skip


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
        f"{_known(frames)} frames", f"{people / frames:.2f} people a frame" if people is not None and frames else None,
        f"{_known(parse.get('frames_per_second'))} frames/s end to end", f"model {_known(parse.get('model'))}",
        f"{precision} on {_known(parse.get('runtime'))}", f"detector {_known(parse.get('detector'))}",
        "interrupted" if parse.get("interrupted") else None,
    ]  # fmt: skip
    note = f"Decoding and writing run in threads of their own, beside the parsing. {_BAR_NOTE}"
    return section(
        "pipeline", "The whole video", paragraph(", ".join(f for f in facts if f) + "."),
        _staged("Stages of qanet parse", by_stage, note),
    )  # fmt: skip


def _staged(caption: str, by_stage: dict[str, list[tuple[str, dict[str, Any]]]], note: str) -> Safe:
    """Bars beside a table for stages, each with (precision, figures) in milliseconds."""
    known = {stage: [(p, f) for p, f in entries if f.get("n")] for stage, entries in by_stage.items()}
    known = {stage: entries for stage, entries in known.items() if entries}
    if not known:
        return paragraph(f"{caption}: {NOT_MEASURED}.", class_="quiet")
    groups = [
        (stage, [Bar(p, p, f.get("p50", 0.0), f.get("p90", 0.0), f.get("p99", 0.0)) for p, f in entries])
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
                target["name"], tag("span", state, class_="wrap") if target.get("error") else state,
                *(milliseconds(figures.get(key)) for key in _FIGURES),
                rate(target.get("people_per_second")) if target.get("kind") != "null" else "", figures.get("n", 0),
            ]
        )  # fmt: skip
    timing = document.get("timing", {})
    header = ("target", "status", "p50", "p90", "p95", "p99", "max", "MAD", "people/s", "samples")
    note = (
        f"{_known(timing.get('rounds'))} interleaved rounds in {_known(timing.get('seconds'))} s after a warm-up; "
        "MAD is the median absolute deviation from the median."
    )
    return section("targets", "All targets", table("Latencies in milliseconds", header, rows, 2), paragraph(note))


def scope(document: dict[str, Any]) -> Safe:
    """What was timed and what was not."""
    timing = document.get("timing", {})
    timed = [tag("li", tag("strong", kind), ": ", words) for kind, words in (timing.get("timed") or {}).items()]
    left_out = [tag("li", words) for words in timing.get("not_timed") or []]
    return section(
        "scope", "What was timed, and what was not",
        paragraph(f"Clock: {_known(timing.get('clock'))}. Order: {_known(timing.get('order'))}."),
        tag("h3", "Timed"), tag("ul", *timed, class_="scope"),
        tag("h3", "Not timed"), tag("ul", *left_out, class_="scope"),
    )  # fmt: skip


def _known(value: object) -> Safe | str:
    return NOT_MEASURED if value is None else escape(value)
