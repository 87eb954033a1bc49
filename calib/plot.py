"""The page of a precision search: what each block loses in INT8 and what it saves."""

from pathlib import Path

from qanet.calib.search import HEADER, METRICS, Found, rows
from qanet.pages.charts import Opposed, opposed_bars
from qanet.pages.render import render
from qanet.pages.svg import COLOURS

_TEMPLATE = Path(__file__).with_name("search.html.j2")


def page(found: Found, title: str) -> str:
    """A whole HTML document."""
    metric = METRICS[found.metric]
    bars = [
        Opposed(
            cost.name,
            COLOURS["fp32" if cost.in_float else "int8"],
            (cost.drop, cost.saved_ms),
            (f"{cost.drop:+.2f}", f"{cost.saved_ms:+.3f}"),
        )
        for cost in found.blocks
    ]
    accuracies = (("FP32", found.fp32), ("all INT8", found.all_int8), ("chosen", found.chosen))
    return render(
        _TEMPLATE,
        title=title,
        metric=metric,
        budget=f"{found.budget:g}",
        in_float=", ".join(found.in_float) or "none",
        accuracy_columns=["network", *(f"{name} x 100" for name in METRICS.values())],
        accuracies=[[name, *(f"{values[key]:.2f}" for key in METRICS)] for name, values in accuracies],
        chart=opposed_bars(
            "Each block alone in INT8: the drop of the metric, and the milliseconds saved",
            bars,
            (f"drop of {metric} x 100", "ms that INT8 saves"),
        ),
        block_columns=HEADER,
        blocks=rows(found),
    )
