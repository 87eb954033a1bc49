"""Latency of the precisions against their accuracy: a scatter and the table beside it."""

from typing import Any

from qanet.benchmarks.report.charts import Point, scatter
from qanet.benchmarks.report.markup import Safe, paragraph, section, table, tag
from qanet.benchmarks.report.values import NOT_MEASURED, label_of, milliseconds, share, shares_in_words, times


def trade_off(document: dict[str, Any]) -> Safe:
    """Latency of the precisions against their accuracy."""
    entries = document.get("comparison", [])
    header = (
        "variant",
        "multiply-adds in",
        "engine p50 ms",
        "engine p90 ms",
        "engine speed-up",
        "frame p50 ms",
        "frame speed-up",
        "over PyTorch (95%)",
        "mIoU",
        "pixel accuracy",
        "agreement with FP32, mIoU",
    )
    caption = "Engine: one crop. Frame: crop, engine, tail and suppression for all people of a frame."
    figures = [
        _scatter(entries, "engine_ms", "engine latency, one crop, p50 (ms)"),
        _scatter(entries, "parser_ms", "frame latency, p50 (ms)"),
    ]
    charts = tag("div", *figures, class_="pair") if any(figures) else None
    return section(
        "trade-off",
        "Latency against accuracy",
        table(caption, header, [_compared(document, entry) for entry in entries], 2),
        charts,
        _note(entries),
    )


def _scatter(entries: list[dict[str, Any]], kind: str, x_name: str) -> Safe | None:
    """Accuracy over one kind of latency; None where nothing has both."""
    points = []
    for entry in entries:
        miou, p50 = (entry.get("accuracy") or {}).get("miou"), (entry.get(kind) or {}).get("p50")
        if miou is not None and p50:
            measured = ((entry.get("measured_accuracy") or {}).get("values") or {}).get("miou") or {}
            interval = None if measured.get("low") is None else (measured["low"], measured["high"])
            points.append(
                Point(
                    entry["precision"],
                    p50,
                    miou,
                    label_of(entry),
                    interval,
                    kind == "parser_ms" and bool(entry.get("pareto")),
                )
            )
    if not points:
        return None
    title = f"mIoU against {x_name}: " + "; ".join(f"{p.name} {p.x:.3g} ms, {p.y:.1%}" for p in points)
    words = "Whiskers: 95% interval over the images. " if any(p.interval for p in points) else ""
    words += (
        "Dashed: the Pareto front, which no other variant beats in both." if any(p.on_front for p in points) else ""
    )
    caption = tag("figcaption", words) if words else None
    return tag("figure", scatter(title, points, x_name, "mIoU (%)"), caption)


def _note(entries: list[dict[str, Any]]) -> Safe:
    """On which data the accuracy was measured, or how to measure it."""
    said = {
        label_of(entry): entry.get("accuracy_note") or "the bundle does not say on which data"
        for entry in entries
        if (entry.get("accuracy") or {}).get("miou") is not None
    }
    if not said:
        words = f"Accuracy of this bundle: {NOT_MEASURED}. Measure it with qanet val NAME.qanet --data DIR --save."
    elif len(set(said.values())) == 1:
        words = f"Accuracy: {next(iter(said.values()))}. The accuracy axis does not start at 0."
    else:
        each = "; ".join(f"{precision}: {note}" for precision, note in said.items())
        words = f"Accuracy: {each}. The accuracy axis does not start at 0."
    return paragraph(words, class_="note")


def _compared(document: dict[str, Any], entry: dict[str, Any]) -> list[object]:
    """A precision's row beside the scatter."""
    engine, parser = entry.get("engine_ms") or {}, entry.get("parser_ms") or {}
    accuracy, agreement = entry.get("accuracy") or {}, entry.get("agreement") or {}
    agrees = share(agreement.get("miou")) if agreement else _reference(document, entry)
    return [
        label_of(entry),
        _execution(entry.get("execution") or {}),
        milliseconds(engine.get("p50")),
        milliseconds(engine.get("p90")),
        times(entry.get("engine_speed_up")),
        milliseconds(parser.get("p50")),
        times(entry.get("parser_speed_up")),
        _over_baseline(entry.get("over_baseline")),
        share(accuracy.get("miou")),
        share(accuracy.get("pixel_accuracy")),
        agrees,
    ]


def _over_baseline(ratio: dict[str, float] | None) -> str:
    """How many times as fast as the method's PyTorch form, with the interval."""
    if not ratio:
        return NOT_MEASURED
    return f"{times(ratio['value'])} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def _reference(document: dict[str, Any], entry: dict[str, Any]) -> str:
    """An FP32 engine that is itself the reference has no agreement; anything else without one was not measured."""
    check = document.get("checks", {}).get(label_of(entry)) or {}
    return "reference" if entry["precision"] == "fp32" and check.get("passed") else NOT_MEASURED


def _execution(execution: dict[str, Any]) -> str:
    """What the multiply-adds really run in; else the type of what is not INT8; else that nobody looked."""
    if execution.get("multiply_add_shares"):
        return shares_in_words(execution["multiply_add_shares"])
    kind = execution.get("floating_point")
    return f"{NOT_MEASURED} (floating point: {kind})" if kind else NOT_MEASURED
