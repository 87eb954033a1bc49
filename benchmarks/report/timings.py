"""The report's sections on time and accuracy, as rows of text, charts and sentences; `page.html.j2` lays them out.

Every function takes the document of results.json. What is None or empty has no section on the page.
"""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from qanet.pages.charts import Bar, Curve, Point, bars, curves, distributions, scatter
from qanet.pages.numbers import NOT_MEASURED, milliseconds, plain, rate, share, times
from qanet.pages.svg import COLOURS, colour_of

Document = Mapping[str, Any]
Rows = list[list[object]]

ACCURACIES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "ap_p": "AP^p",
    "ap_r": "AP^r",
    "rank_correlation_quality": "rank correlation of Q",
    "ece_quality": "calibration error of Q",
}
NARROW_TO_WIDE = ("int8", "fp16", "bf16", "fp32", "other")
_FIGURES = ("p50", "p90", "p95", "p99", "max", "mad")
_NO_PEOPLE = ("null", "anchor", "pipeline")
_PLOTTED_KINDS = (("engine", "Engine, one crop"), ("parser", "Whole frame"), ("baseline", "Whole frame in PyTorch"))
_BLOCKS_SHOWN = 12


def _wrapped(words: str) -> Markup:
    return Markup('<span class="wrap">{}</span>').format(words)


def label_of(entry: Document) -> str:
    """The name of a row of the comparison."""
    return str(entry.get("label") or entry["precision"])


def shares_in_words(shares: Mapping[str, float]) -> str:
    """Fractions by precision, narrow to wide, without those below half a percent."""
    known = [(precision, shares[precision]) for precision in NARROW_TO_WIDE if shares.get(precision, 0) >= 0.005]
    return ", ".join(f"{precision} {value:.0%}" for precision, value in known)


def header(document: Document) -> list[str]:
    """Two lines: the network; the machine, the input and the time."""
    bundle, source, machine_ = (document.get(key, {}) for key in ("bundle", "input", "machine"))
    cpu, size = machine_.get("cpu") or {}, bundle.get("input_hw")
    network = [
        f"label set {plain(bundle.get('labels'))}",
        f"{len(bundle['classes'])} classes" if bundle.get("classes") else None,
        f"input {size[0]}\u00d7{size[1]} (H\u00d7W)" if size else None,
    ]
    processors = [plain(gpu.get("name")) for gpu in machine_.get("gpus") or []] or [plain(cpu.get("model"))]
    where = [
        f"on {', '.join(processors)}",
        f"{cpu['usable_cpus']} CPUs" if cpu.get("usable_cpus") else None,
        f"input {plain(source.get('name'))}",
        plain(document.get("created")).replace("T", " ").replace("+00:00", " UTC"),
    ]
    return [", ".join(part for part in parts if part) for parts in (network, where)]


def cards(document: Document) -> list[dict[str, Any]]:
    """The key figures: a figure, lines below it and a colour, per engine."""
    found = []
    for entry in document.get("comparison", []):
        if entry.get("tail") == "pytorch":
            continue  # the baseline is no engine
        engine, speed = entry.get("engine_ms") or {}, entry.get("engine_speed_up")
        if entry.get("status") == "refused":
            figure = "not timed"
        else:
            figure = f"{milliseconds(engine['p50'])} ms" if engine.get("p50") is not None else NOT_MEASURED
        gain = f", {times(speed)} over FP32" if speed is not None and entry["precision"] != "fp32" else ""
        lines = [
            f"{label_of(entry)} engine, one crop, p50{gain}",
            f"mIoU {share((entry.get('accuracy') or {}).get('miou'))}",
        ]
        found.append({"figure": figure, "lines": lines, "colour": colour_of(entry["precision"])})
    return found


def trade_off(document: Document) -> dict[str, Any]:
    """Latency of the variants against their accuracy: rows, scatters, a note on the data."""
    entries = document.get("comparison", [])
    scatters = [
        _scatter(entries, "engine_ms", "engine latency, one crop, p50 (ms)"),
        _scatter(entries, "parser_ms", "frame latency, p50 (ms)"),
    ]
    return {
        "rows": [_compared(document, entry) for entry in entries],
        "charts": [drawn for drawn in scatters if drawn],
        "note": _accuracy_note(entries),
    }


def _scatter(entries: list[dict[str, Any]], kind: str, x_name: str) -> dict[str, Any] | None:
    """Accuracy over one kind of latency; None where no variant has both."""
    points = []
    for entry in entries:
        miou, p50 = (entry.get("accuracy") or {}).get("miou"), (entry.get(kind) or {}).get("p50")
        if miou is not None and p50:
            measured = ((entry.get("measured_accuracy") or {}).get("values") or {}).get("miou") or {}
            interval = None if measured.get("low") is None else (measured["low"], measured["high"])
            on_front = kind == "parser_ms" and bool(entry.get("pareto"))
            points.append(Point(entry["precision"], p50, miou, label_of(entry), interval, on_front))
    if not points:
        return None
    title = f"mIoU against {x_name}: " + "; ".join(f"{p.name} {p.x:.3g} ms, {p.y:.1%}" for p in points)
    words = "Whiskers: 95% interval over the images. " if any(p.interval for p in points) else ""
    if any(p.on_front for p in points):
        words += "Dashed: the Pareto front, which no other variant beats in both."
    return {"svg": scatter(title, points, x_name, "mIoU (%)"), "caption": words}


def _accuracy_note(entries: list[dict[str, Any]]) -> str:
    """On which data the accuracy was measured, or how to measure it."""
    notes = {
        label_of(entry): entry.get("accuracy_note") or "the bundle does not say on which data"
        for entry in entries
        if (entry.get("accuracy") or {}).get("miou") is not None
    }
    if not notes:
        return f"Accuracy of this bundle: {NOT_MEASURED}. Measure it with qanet val NAME.qanet --data DIR --save."
    if len(set(notes.values())) == 1:
        words = next(iter(notes.values()))
    else:
        words = "; ".join(f"{label}: {note}" for label, note in notes.items())
    return f"Accuracy: {words}. The accuracy axis does not start at 0."


def _compared(document: Document, entry: dict[str, Any]) -> list[object]:
    engine, parser = entry.get("engine_ms") or {}, entry.get("parser_ms") or {}
    accuracy_, agreement = entry.get("accuracy") or {}, entry.get("agreement") or {}
    execution, over = entry.get("execution") or {}, entry.get("over_baseline")
    check = document.get("checks", {}).get(label_of(entry)) or {}
    if execution.get("multiply_add_shares"):
        computes_in = shares_in_words(execution["multiply_add_shares"])
    else:
        kind = execution.get("floating_point")
        computes_in = f"{NOT_MEASURED} (floating point: {kind})" if kind else NOT_MEASURED
    if agreement:
        agrees = share(agreement.get("miou"))
    else:  # a checked FP32 engine is itself the reference
        agrees = "reference" if entry["precision"] == "fp32" and check.get("passed") else NOT_MEASURED
    return [
        label_of(entry),
        computes_in,
        milliseconds(engine.get("p50")),
        milliseconds(engine.get("p90")),
        times(entry.get("engine_speed_up")),
        milliseconds(parser.get("p50")),
        times(entry.get("parser_speed_up")),
        f"{times(over['value'])} ({over['low']:.2f} to {over['high']:.2f})" if over else NOT_MEASURED,
        share(accuracy_.get("miou")),
        share(accuracy_.get("pixel_accuracy")),
        agrees,
    ]


def models(document: Document) -> Rows:
    """The models of one run against the first of them."""
    rows: Rows = []
    for row in document.get("models") or []:
        ratio = row["ratio"]
        interval = f"{ratio['value']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})" if ratio else NOT_MEASURED
        verdict = _wrapped(row["verdict"] + (f": {row['reason']}" if row["reason"] else ""))
        rows.append([f"{row['new']} over {row['old']}", row["kind"], row["of"], interval, verdict])
    return rows


def accuracy(document: Document) -> dict[str, Any] | None:
    """Metrics with their intervals over the images."""
    measured = document.get("accuracy") or {}
    if not measured:
        return None
    rows = [
        [label, plain(entry.get("images")), *(_with_interval(entry["values"].get(key)) for key in ACCURACIES)]
        for label, entry in measured.items()
    ]
    return {"rows": rows, "columns": list(ACCURACIES.values()), "note": next(iter(measured.values())).get("note", "")}


def _with_interval(value: dict[str, float | None] | None) -> str:
    if not value or value["value"] is None:
        return NOT_MEASURED
    return f"{100 * value['value']:.2f} ({100 * (value['low'] or 0):.1f} to {100 * (value['high'] or 0):.1f})"


def spread(document: Document) -> list[dict[str, Any]]:
    """Distributions of the latencies of engines and of whole frames."""
    figures = []
    for kind, title in _PLOTTED_KINDS:
        rows = [
            (t.get("variant") or t["name"], t.get("precision"), t["samples_ms"])
            for t in document.get("targets", [])
            if t.get("kind") == kind and t.get("samples_ms") and (kind != "engine" or t.get("batch") == 1)
        ]
        if rows:
            drawn = distributions(f"Distribution of latencies: {title}", rows)
            figures.append({"svg": drawn, "caption": f"{title}. Line: the median."})
    return figures


ByStage = dict[str, list[tuple[str, Mapping[str, Any]]]]  # stage -> (precision or label, figures in ms)


def _staged(caption: str, by_stage: ByStage) -> dict[str, Any]:
    """A bar chart and the rows of its table; both are empty where nothing was measured."""
    known = {stage: [(label, f) for label, f in entries if f.get("n")] for stage, entries in by_stage.items()}
    known = {stage: entries for stage, entries in known.items() if entries}
    groups = [
        (stage, [Bar(label, _precision_in(label), *(f.get(k, 0.0) for k in ("p50", "p90", "p99"))) for label, f in of])
        for stage, of in known.items()
    ]
    rows = [
        [stage, label, *(milliseconds(f.get(key)) for key in ("p50", "p90", "p99")), f["n"]]
        for stage, entries in known.items()
        for label, f in entries
    ]
    return {"caption": caption, "svg": bars(caption, groups) if groups else "", "rows": rows}


def _precision_in(label: str) -> str | None:
    return next((word for word in label.split() if word in COLOURS), None)


def stages(document: Document) -> dict[str, Any]:
    """The stages of the whole-parser target, per precision; the whole frame comes last."""
    by_stage: ByStage = {}
    whole: list[tuple[str, Mapping[str, Any]]] = []
    for precision, measured in document.get("stages", {}).items():
        for stage, figures in measured.items():
            by_stage.setdefault(stage, []).append((precision, figures))
        frame = next((e.get("parser_ms") for e in document.get("comparison", []) if e["precision"] == precision), None)
        if frame:
            whole.append((precision, frame))
    if whole:
        by_stage["whole frame"] = [*by_stage.pop("whole frame", []), *whole]
    source = document.get("input", {})
    before = [
        f"{name} p50 {milliseconds(source[key]['p50'])} ms"
        for key, name in (("decode_ms", "decoding a frame"), ("detect_ms", f"detection ({source.get('detector')})"))
        if source.get(key, {}).get("n")
    ]
    people = source.get("people_per_frame")
    return _staged("Stages of the whole parser", by_stage) | {
        "people": f"{people:.3g} people per frame on average. " if people else "",
        "before": ", ".join(before),
    }


def pipeline(document: Document) -> dict[str, Any] | None:
    """The summary of a `qanet parse` run, where one was given."""
    parse = document.get("parse")
    if not isinstance(parse, dict):
        return None
    precision = str(parse.get("precision", ""))
    by_stage: ByStage = {str(s): [(precision, f)] for s, f in (parse.get("stages_ms") or {}).items() if f}
    frames, people = parse.get("frames"), parse.get("people")
    facts = [
        f"{_known(frames)} frames",
        f"{people / frames:.2f} people per frame" if people is not None and frames else None,
        f"{_known(parse.get('frames_per_second'))} frames/s end to end",
        f"model {_known(parse.get('model'))}",
        f"{precision} on {_known(parse.get('runtime'))}",
        f"detector {_known(parse.get('detector'))}",
        "interrupted" if parse.get("interrupted") else None,
    ]
    return _staged("Stages of qanet parse", by_stage) | {"facts": ", ".join(fact for fact in facts if fact)}


def video(document: Document) -> dict[str, Any] | None:
    """The video pipeline as a target, stage by stage."""
    found = document.get("pipeline") or {}
    by_stage: ByStage = {}
    for label, entry in found.items():
        for stage, figures in (entry.get("stages_ms") or {}).items():
            by_stage.setdefault(stage, []).append((label, figures))
    rates = [
        f"{label} {milliseconds(entry['ms_per_frame'].get('p50'))} ms per frame"
        for label, entry in found.items()
        if entry["ms_per_frame"].get("n")
    ]
    return _staged("Stages of the pipeline", by_stage) | {"rates": ", ".join(rates)} if by_stage else None


def sweeps(document: Document) -> list[dict[str, Any]]:
    """Latency over people and over the image's area."""
    found = document.get("sweeps") or {}
    precisions = {label_of(entry): entry["precision"] for entry in document.get("comparison", [])}
    figures = []
    for key, x_name, words in (
        ("persons", "people in the frame", "The frame with most people, its boxes repeated and shifted."),
        ("area", "megapixels of the image", "The same frame made smaller and larger; the people grow with it."),
    ):
        drawn = []
        for label, entries in (found.get(key) or {}).items():
            points = [(entry["x"], entry["latency_ms"]["p50"]) for entry in entries]
            last = f"{label}: {milliseconds(points[-1][1])} ms at {points[-1][0]:.3g}"
            drawn.append(Curve(colour_of(precisions.get(label)), points, last))
        if drawn:
            svg = curves(f"Frame latency over {x_name}", drawn, x_name, "p50 ms per frame")
            figures.append({"svg": svg, "caption": words})
    return figures


def differences(document: Document) -> Rows:
    """Agreement of the precisions with FP32."""
    rows: Rows = []
    for precision, agreement in document.get("agreement", {}).items():
        cells = [share(agreement.get(key)) for key in ("pixels", "foreground", "miou")]
        for score in ("quality", "iou", "pixel"):
            found = agreement.get(f"{score}_score_difference") or {}
            cells.append(" / ".join(_four(found.get(key)) for key in ("mean", "max")))
        rows.append([precision, agreement.get("against", ""), plain(agreement.get("crops")), *cells])
    return rows


def _four(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.4f}"


def targets(document: Document) -> dict[str, Any]:
    """Every target with its figures, the harness's own among them."""
    rows: Rows = []
    for target in document.get("targets", []):
        figures, error = target.get("latency_ms") or {}, target.get("error")
        rows.append(
            [
                target["name"],
                _wrapped(f"{target['status']}: {error}") if error else target["status"],
                *(milliseconds(figures.get(key)) for key in _FIGURES),
                "" if target.get("kind") in _NO_PEOPLE else rate(target.get("people_per_second")),
                figures.get("n", 0),
            ]
        )
    timing = document.get("timing", {})
    rounds = timing.get("rounds")
    return {
        "rows": rows,
        "rounds": _known(rounds),
        "seconds": _known(timing.get("seconds")),
        "few": (rounds or 0) < 100,
    }


def scope(document: Document) -> dict[str, Any]:
    """What was timed and what was not."""
    timing = document.get("timing", {})
    return {
        "clock": _known(timing.get("clock")),
        "order": _known(timing.get("order")),
        "timed": list((timing.get("timed") or {}).items()),
        "not_timed": timing.get("not_timed") or [],
    }


def _known(value: object) -> object:
    return NOT_MEASURED if value is None else value
