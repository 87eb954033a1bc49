"""The page in a browser, where there is one: no complaint, no overflow, every picture decoded, no text too small."""

import html
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from qanet.benchmarks.report.page import write_report
from qanet.benchmarks.report.pictures import Pictures, jpeg
from qanet.calib.plot import page as search_page
from qanet.calib.search import BlockCost, Found


@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_the_page_without_complaint_or_overflow(document, tmp_path, width):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium to render the report in")
    document["bundle"]["name"] = "a-rather-long-bundle-name-" * 3
    document["parse"] = {"frames": 2, "people": 2, "stages_ms": {"decode": {"p50": 1, "p90": 2, "p99": 3, "n": 2}}}
    frame = jpeg(np.full((300, 900, 3), 128, np.uint8), "a frame")
    write_report(tmp_path / "report.html", document, Pictures([frame] * 4, [], [frame] * 6, "note", [("a", (1, 2, 3))]))
    done = _measure(browser, tmp_path, width)
    measured = re.search(r"page (\d+) of (\d+), pictures (\d+), small (\d+)", done.stdout)
    assert measured is not None, done.stderr[-2000:]
    scroll_width, client_width, pictures, small = map(int, measured.groups())
    assert client_width == width and scroll_width <= width
    assert pictures == 10 and small == 0  # every picture was decoded, and no text is below 10 px on the screen
    assert "CONSOLE" not in done.stderr


@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_the_full_page_without_complaint_or_overflow(full_document, tmp_path, width):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium to render the report in")
    write_report(tmp_path / "report.html", full_document)
    done = _measure(browser, tmp_path, width)
    measured = re.search(r"page (\d+) of (\d+), pictures (\d+), small (\d+)", done.stdout)
    assert measured is not None, done.stderr[-2000:]
    scroll_width, client_width, _, small = map(int, measured.groups())
    assert client_width == width and scroll_width <= width and small == 0
    assert "CONSOLE" not in done.stderr


@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_the_page_of_a_precision_search_without_overflow(tmp_path, width):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium to render the page in")
    blocks = tuple(BlockCost(f"backbone.blocks.{i}.long", 0.5 * i - 1, 3.0, 2.0 + 0.5 * i, i > 2) for i in range(6))
    accuracy = {"miou": 60.0, "ap_r": 40.0, "rank_correlation": 50.0}
    found = Found("miou", 0.5, tuple(b.name for b in blocks if b.in_float), accuracy, accuracy, accuracy, blocks)
    (tmp_path / "report.html").write_text(search_page(found, "a-rather-long-bundle-name-" * 3))
    done = _measure(browser, tmp_path, width)
    measured = re.search(r"page (\d+) of (\d+), pictures (\d+), small (\d+)", done.stdout)
    assert measured is not None, done.stderr[-2000:]
    scroll_width, client_width, _, small = map(int, measured.groups())
    assert client_width == width and scroll_width <= width and small == 0
    assert "CONSOLE" not in done.stderr


def _measure(browser: str, folder: Path, width: int) -> subprocess.CompletedProcess:
    """Show the page in a frame of a width (windows have a least one) and print what its layout came to."""
    page = html.escape((folder / "report.html").read_text(), quote=True)
    script = """
    addEventListener('load', () => {
      const inner = document.querySelector('iframe').contentDocument, root = inner.documentElement;
      const decoded = [...inner.images].filter(image => image.naturalWidth > 0).length;
      const small = [...inner.querySelectorAll('p, td, th, li, dd, svg.chart text')].filter(element => {
        const chart = element.closest('svg');
        const scale = chart ? chart.getBoundingClientRect().width / chart.viewBox.baseVal.width : 1;
        return parseFloat(inner.defaultView.getComputedStyle(element).fontSize) * scale < 10;
      }).length;
      document.title = `page ${root.scrollWidth} of ${root.clientWidth}, pictures ${decoded}, small ${small}`;
    });"""
    frame = f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{page}"></iframe>'
    (folder / "frame.html").write_text(f"<!doctype html><title></title>{frame}<script>{script}</script>")
    options = [
        "--headless",
        "--hide-scrollbars",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={folder / 'profile'}",
        "--enable-logging=stderr",
        "--virtual-time-budget=4000",
        "--window-size=1400,1000",
        "--dump-dom",
    ]
    return subprocess.run(
        [browser, *options, (folder / "frame.html").as_uri()], capture_output=True, text=True, timeout=120, check=False
    )
