"""Pages from templates: values are escaped, a name that is missing is an error, nothing is loaded."""

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from qanet.pages.render import render

TEMPLATE = """{% extends "base.html.j2" %}
{% from "macros.html.j2" import facts, figure, section, table %}
{% block main %}
{% call section("s", title) %}
{{ table(title, ("name", title), rows) }}
{{ facts([(title, 1234567 | mebibytes)]) }}
{{ figure(chart, title) }}
{% endcall %}
{% endblock %}
"""
HOSTILE = "<script>alert('x')</script>\"&"


@pytest.fixture
def template(tmp_path):
    path = tmp_path / "page.html.j2"
    path.write_text(TEMPLATE)
    return path


def test_values_are_escaped_unless_they_are_markup(template):
    page = render(template, title=HOSTILE, rows=[(HOSTILE, Markup("<b>bold</b>"))], chart=Markup("<svg></svg>"))
    assert page.startswith("<!doctype html>") and "<script" not in page and HOSTILE not in page
    assert page.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&#34;&amp;") >= 8
    assert '<td class="number"><b>bold</b></td>' in page and "<figure><svg></svg>" in page and "<dd>1.2</dd>" in page


def test_a_name_without_a_value_is_an_error(template):
    with pytest.raises(UndefinedError, match="chart"):
        render(template, title="t", rows=[])


def test_a_page_may_load_nothing_but_its_own_data(template):
    page = render(template, title="t", rows=[], chart="")
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    assert "<link" not in page and "src=" not in page and "@import" not in page and "url(" not in page
