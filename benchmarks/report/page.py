"""The page: sections in order, in one HTML file that asks the network for nothing."""

from pathlib import Path
from typing import Any

from qanet.benchmarks.report import artifact, measured, more, shown, trade_off
from qanet.benchmarks.report.markup import Safe, join, tag
from qanet.benchmarks.report.pictures import Pictures
from qanet.benchmarks.report.style import CSS
from qanet.files import write_text

# Nothing may be fetched, whatever a name in the data says.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(path: Path, document: dict[str, Any], pictures: Pictures | None = None) -> None:
    """Write the report.

    Args:
        path: the HTML file; written whole or not at all.
        document: what results.json holds; an optional "parse" is the summary that `qanet parse --json` printed.
        pictures: sample frames and crops; None for a page without.
    """
    write_text(path, render(document, pictures or Pictures()))


def render(document: dict[str, Any], pictures: Pictures) -> str:
    """The page's HTML."""
    name = document.get("bundle", {}).get("name", "bundle")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("title", f"{name}: qanet benchmark"),
        tag("style", Safe(CSS)),
    )
    sections = [
        shown.frames(pictures),
        trade_off.trade_off(document),
        more.models(document),
        more.accuracy(document),
        more.spread(document),
        measured.stages(document),
        more.sweeps(document),
        shown.differences(document, pictures),
        measured.pipeline(document),
        measured.video(document),
        measured.targets(document),
        more.costs(document),
        more.pieces(document),
        more.profiles(document),
        more.mlperf(document),
        artifact.engines(document),
        artifact.files(document),
        artifact.machine(document),
        measured.scope(document),
    ]
    footer = tag(
        "footer", f"Written by qanet-edge {document.get('qanet_edge', '')} from results.json beside this page."
    )
    body = tag("body", artifact.header(document), tag("main", *sections, footer))
    return f"<!doctype html>\n{tag('html', join(head, body), lang='en')}\n"
