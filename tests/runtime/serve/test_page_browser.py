"""The live page in a real browser: it renders, its picture changes, it complains of nothing and asks nobody else."""

import json
import threading
import time

import numpy as np
import pytest
from headless_browser import Browser, find_browser

from qanet.labels import CCP13
from qanet.results import People, Person
from qanet.runtime.serve.address import parse_address
from qanet.runtime.serve.live_page import LivePage
from qanet.runtime.timing import StageTimes
from qanet.runtime.video.frame import Frame


class Source:
    kind, fps, expected_frames, warnings, dropped = "live", 10.0, 0, (), 12


def result(index):
    """Two people in a picture that gets brighter and darker."""
    people = []
    for number, x0 in enumerate((40, 180), 1):
        labels = np.full((120, 60), 4, np.uint8)
        labels[:30], labels[90:] = 2, 6
        scores = np.full(12, 0.75, np.float32)
        people.append(
            Person(
                np.array([x0, 40, x0 + 60, 160], np.float32),
                0.9,
                0.8,
                0.7,
                0.9 - number / 10,
                scores,
                scores,
                labels,
                (x0, 40, x0 + 60, 160),
                number,
            )
        )
    level = 40 + 25 * (index % 8)
    return People(np.full((240, 320, 3), level, np.uint8), CCP13, people)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    find_browser()
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def tab(browser, running):
    """The browser, empty again before the page ends: an open one would go on asking for it."""
    yield browser
    browser.open("about:blank", 800, 600)
    browser.events.clear()


@pytest.fixture
def running():
    """A page of two streams that run until the test ends, the first one with a name like an address."""
    page = LivePage(parse_address("127.0.0.1:0"))
    sinks = [page.stream(name, Source()) for name in ("<b>camera</b>-" + "long-" * 12 + "1", "second")]
    times = StageTimes()
    for name, duration_ms in (("decode", 1.5), ("engine", 12.25), ("capture to result", 40.0)):
        times.add(name, duration_ms)
    page.describe({"model": "a-model", "precision": "int8", "runtime": "openvino", "detector": "d.onnx"}, [[times]] * 2)
    stop = threading.Event()

    def feed():
        index = 0
        while not stop.wait(0.05):
            for sink in sinks:
                sink.write(Frame(index, str(index), result(index).image), result(index))
            index += 1

    thread = threading.Thread(target=feed)
    for sink in sinks:
        sink.__enter__()
    thread.start()

    def end():
        if not stop.is_set():
            stop.set()
            thread.join()
            for sink in sinks:
                sink.__exit__(None, None, None)

    page.end = end
    yield page
    end()


_BRIGHTNESS = """(() => {
  const canvas = document.createElement('canvas'), pen = canvas.getContext('2d');
  pen.drawImage(document.getElementById('picture'), 200, 0, 100, 30, 0, 0, 8, 8);
  return pen.getImageData(4, 4, 1, 1).data[0];
})()"""
_READY = "document.querySelectorAll('#people > li').length === 2 && document.getElementById('picture').naturalWidth > 0"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_shows_the_stream_and_its_numbers(tab, running, width, dark):
    tab.open(running.server.url, width, 844, dark)
    tab.wait_for(_READY)
    seen, deadline = set(), time.monotonic() + 30
    while len(seen) < 3:  # the picture moves
        seen.add(tab.evaluate(_BRIGHTNESS))
        assert time.monotonic() < deadline, seen
    frames = int(tab.evaluate("document.querySelector('#tiles').innerText.match(/frames\\s+(\\d+)/)[1]"))
    tab.wait_for(f"+document.querySelector('#tiles').innerText.match(/frames\\s+(\\d+)/)[1] > {frames}")
    text = tab.evaluate("document.body.innerText")
    for told in (
        "running",
        "a-model",
        "int8",
        "frames/s",
        "engine",
        "12.25 ms",
        "#1 Q 0.80",
        "#2 Q 0.70",
        "iou 0.80",
        "upper-clothes 50%",
        "hair 25%",
        "dropped",
        "<b>camera</b>",
    ):
        assert told in text, told
    layout = tab.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert layout == [width, width]
    small = "[...document.querySelectorAll('body *')].filter(e => parseFloat(getComputedStyle(e).fontSize) < 12).length"
    assert tab.evaluate(small) == 0
    page_colour = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert page_colour == ("rgb(18, 24, 31)" if dark else "rgb(255, 255, 255)")
    assert tab.complaints() == []
    assert tab.requests() and all(url.startswith((running.server.url, "data:")) for url in tab.requests())


def test_another_stream_can_be_chosen(tab, running):
    tab.open(running.server.url, 1200, 800)
    tab.wait_for(_READY)
    tab.evaluate("document.querySelectorAll('#streams button')[1].click()")
    tab.wait_for("document.getElementById('picture').src.endsWith('stream=1')")
    tab.wait_for("document.getElementById('caption').textContent.startsWith('second, frame ')")
    assert tab.evaluate("document.querySelectorAll('#streams button')[1].getAttribute('aria-pressed')") == "true"


def test_the_end_of_the_run_is_told(tab, running):
    tab.open(running.server.url, 390, 844)
    tab.wait_for(_READY)
    tab.wait_for("document.getElementById('status').textContent === 'running'")
    start = time.monotonic()
    running.end()
    assert time.monotonic() - start < 10  # a browser that watches holds nothing up
    tab.wait_for("document.getElementById('status').textContent === 'the run has ended or cannot be reached'")


def test_another_site_can_neither_read_nor_show_it(tab, running, tmp_path):
    """A page of somebody else's, here a file, in the same tab."""
    url = running.server.url
    tab.open(running.server.url, 1200, 800)
    tab.wait_for(_READY)
    (tmp_path / "evil.html").write_text("<!doctype html><title>evil</title>")
    tab.open((tmp_path / "evil.html").as_uri(), 1200, 800)
    read = f"fetch({json.dumps(url + 'state.json')}).then(a => a.text()).catch(e => 'refused')"
    assert tab.evaluate(read) == "refused"
    shown = f"""new Promise(tell => {{ const image = new Image(); image.onload = () => tell('shown');
      image.onerror = () => tell('refused'); image.src = {json.dumps(url + "picture.jpg")}; }})"""
    assert tab.evaluate(shown) == "refused"
