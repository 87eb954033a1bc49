"""What each block costs in INT8 and what it saves, as one HTML page with an SVG: nothing is loaded from elsewhere."""

from html import escape

from qanet.calib.search import HEADER, METRICS, Found, rows

_ROW, _TOP, _LABEL, _HALF = 18, 34, 250, 240  # pixels
_STYLE = (
    "body{font:14px system-ui,sans-serif;margin:2em;max-width:64em}table{border-collapse:collapse}"
    "td,th{padding:2px 10px;text-align:right;border-bottom:1px solid #ddd}"
    "td:first-child,th:first-child{text-align:left}"
    ".float{fill:#c0504d}.int8{fill:#4f81bd}text{font:12px system-ui,sans-serif}"
)


def page(found: Found, title: str) -> str:
    """A whole HTML document."""
    name = METRICS[found.metric]
    accuracies = [("FP32", found.fp32), ("all INT8", found.all_int8), ("chosen", found.chosen)]
    summary = "".join(
        f"<tr><td>{label}</td>" + "".join(f"<td>{values[key]:.2f}</td>" for key in METRICS) + "</tr>"
        for label, values in accuracies
    )
    head = "".join(f"<th>{escape(text)} x 100</th>" for text in METRICS.values())
    body = "".join("<tr>" + "".join(f"<td>{escape(str(v))}</td>" for v in row) + "</tr>" for row in rows(found))
    columns = "".join(f"<th>{escape(column)}</th>" for column in HEADER)
    kept = ", ".join(found.in_float) or "none"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>{escape(title)}</h1><p>Budget: a drop of {found.budget:g} of {escape(name)} x 100. Left in float: "
        f"{escape(kept)}.</p><table><tr><th></th>{head}</tr>{summary}</table><h2>Each block alone in INT8</h2>"
        f"{_bars(found)}<table><tr>{columns}</tr>{body}</table></html>\n"
    )


def _bars(found: Found) -> str:
    """To the left the drop of the metric, to the right the milliseconds saved; a block a row."""
    blocks = found.blocks
    most_drop = max((abs(c.drop) for c in blocks), default=0.0) or 1.0
    most_ms = max((abs(c.saved_ms) for c in blocks), default=0.0) or 1.0
    middle = _LABEL + _HALF
    width, height = middle + _HALF + 70, _TOP + _ROW * len(blocks) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img">',
        f'<text x="{middle - 8}" y="16" text-anchor="end">drop of {escape(METRICS[found.metric])} x 100</text>',
        f'<text x="{middle + 8}" y="16">ms that INT8 saves</text>',
        f'<line x1="{middle}" y1="{_TOP - 8}" x2="{middle}" y2="{height}" stroke="#888"/>',
    ]
    room = _HALF - 50
    for number, cost in enumerate(blocks):
        y = _TOP + _ROW * number
        kind = "float" if cost.in_float else "int8"
        drop, saved = room * abs(cost.drop) / most_drop, room * abs(cost.saved_ms) / most_ms
        pale = {True: "1", False: "0.35"}  # a bar of the wrong sign: a gain of the metric, a loss of time
        parts += [
            f'<text x="0" y="{y + 10}">{escape(cost.name)}</text>',
            f'<rect class="{kind}" x="{middle - drop:.1f}" y="{y}" width="{drop:.1f}" height="{_ROW - 6}" '
            f'opacity="{pale[cost.drop >= 0]}"/>',
            f'<text x="{middle - drop - 4:.1f}" y="{y + 10}" text-anchor="end">{cost.drop:+.2f}</text>',
            f'<rect class="{kind}" x="{middle}" y="{y}" width="{saved:.1f}" height="{_ROW - 6}" '
            f'opacity="{pale[cost.saved_ms >= 0]}"/>',
            f'<text x="{middle + saved + 4:.1f}" y="{y + 10}">{cost.saved_ms:+.3f}</text>',
        ]
    return "".join([*parts, "</svg>"])
