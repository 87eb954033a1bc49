"""Jinja2 templates to HTML pages.

A page's template extends `base.html.j2` of this folder, which carries `style.css` and forbids the page to load
anything. Every value is escaped unless it is `markupsafe.Markup`; a name that the caller did not give is an error.
"""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from qanet.pages import numbers

FOLDER = Path(__file__).parent
FILTERS = {
    "milliseconds": numbers.milliseconds,
    "share": numbers.share,
    "mebibytes": numbers.mebibytes,
    "plain": numbers.plain,
}


def render(template: Path, **values: Any) -> str:
    """The HTML of a page.

    Args:
        template: the page's own template; it finds those of its folder and of this one by their file names.
        values: names that the template uses.
    Raises:
        jinja2.TemplateError: a template that is missing or broken, or uses a name that is not among the values.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= FILTERS
    return environment.get_template(template.name).render(values)
