"""The report: one HTML file of what results.json holds, which loads nothing from the network."""

import base64
from pathlib import Path
from typing import Any

from qanet.benchmarks.report import facts, timings
from qanet.benchmarks.report.pictures import Pictures
from qanet.files import write_text
from qanet.pages.numbers import plain
from qanet.pages.render import render as render_template

_TEMPLATE = Path(__file__).with_name("page.html.j2")


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
    name = plain(document.get("bundle", {}).get("name"))
    return render_template(
        _TEMPLATE,
        title=f"{name}: qanet benchmark",
        name=name,
        version=document.get("qanet_edge", ""),
        warnings=document.get("warnings") or [],
        trace=document.get("trace"),
        header=timings.header(document),
        cards=timings.cards(document),
        targets=timings.targets(document),
        scope=timings.scope(document),
        trade_off=timings.trade_off(document),
        models=timings.models(document),
        accuracy=timings.accuracy(document),
        spread=timings.spread(document),
        stages=timings.stages(document),
        sweeps=timings.sweeps(document),
        differences=timings.differences(document),
        pipeline=timings.pipeline(document),
        video=timings.video(document),
        costs=facts.costs(document),
        pieces=facts.pieces(document),
        profiles=facts.profiles(document),
        mlperf=facts.mlperf(document),
        engines=facts.engines(document),
        files=facts.files(document),
        machine=facts.machine(document),
        pictures=pictures,
        data_url=lambda picture: f"data:{picture.mime};base64,{base64.b64encode(picture.data).decode()}",
    )
