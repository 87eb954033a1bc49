"""HTML that is escaped unless it was built here: every child that is not Safe, and every attribute, is text."""

import html
from collections.abc import Sequence

_VOID = {"meta", "img", "br", "rect", "line", "circle", "path", "polygon"}


class Safe(str):
    """Markup that needs no escaping."""


def escape(value: object) -> Safe:
    """Text as markup; Safe passes as it is."""
    return value if isinstance(value, Safe) else Safe(html.escape(str(value), quote=True))


def tag(name: str, /, *children: object, **attributes: object) -> Safe:
    """An element. `class_` is class, other underscores are hyphens; attributes and children of None are left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Safe(f"<{name}{written}/>" if name not in ("meta", "img", "br") else f"<{name}{written}>")
    return Safe(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: object) -> Safe:
    """Children one after the other; None is left out."""
    return Safe("".join(escape(child) for child in children if child is not None))


def table(caption: str, header: Sequence[object], rows: Sequence[Sequence[object]], text_columns: int = 1) -> Safe:
    """An accessible table in a box that scrolls sideways on narrow screens.

    Args:
        text_columns: so many columns at the left hold text; the others hold numbers, set to the right. The first
            column heads its row.
    """
    head = tag("tr", *(tag("th", cell, scope="col", class_=_align(i, text_columns)) for i, cell in enumerate(header)))
    body = [
        tag(
            "tr",
            *(
                tag("th", cell, scope="row") if i == 0 else tag("td", cell, class_=_align(i, text_columns))
                for i, cell in enumerate(row)
            ),
        )
        for row in rows
    ]
    inner = tag("table", tag("thead", head), tag("tbody", *body), aria_label=caption)
    # The words stand outside of what scrolls, or a phone would cut them off.
    scroll = tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)
    return tag("figure", tag("figcaption", caption, class_="above"), scroll)


def facts(rows: Sequence[tuple[object, object]]) -> Safe:
    """Names and values, as a definition list."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in rows), class_="facts")


def section(anchor: str, title: str, *children: object) -> Safe:
    """A section with a heading that names it."""
    heading = tag("h2", title, id=f"{anchor}-title")
    return tag("section", heading, *children, id=anchor, aria_labelledby=f"{anchor}-title")


def paragraph(*children: object, class_: str | None = None) -> Safe:
    """A paragraph."""
    return tag("p", *children, class_=class_)


def _align(index: int, text_columns: int) -> str | None:
    return "number" if index >= text_columns else None
