"""The live page's server: what it says, whom it refuses, what a slow client costs, and that nothing of it is left."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import cv2
import numpy as np
import pytest

from qanet.errors import QanetError
from qanet.labels import CCP13
from qanet.results import People, Person
from qanet.runtime.serve import server
from qanet.runtime.serve.address import parse_address
from qanet.runtime.serve.live_page import LivePage
from qanet.runtime.timing import StageTimes
from qanet.runtime.video.frame import Frame

# An exception in a client's thread would print a traceback.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


class Source:
    kind, fps, expected_frames, warnings = "live", 10.0, 0, ()
    dropped = 3


def result(level=90):
    """Somebody of ccp13 in a grey picture of 160 x 120."""
    labels = np.full((80, 40), 4, np.uint8)
    labels[:20] = 2
    scores = np.full(12, 0.5, np.float32)
    one = Person(
        np.array([20, 20, 60, 100], np.float32), 0.9, 0.8, 0.7, 0.6, scores, scores, labels, (20, 20, 60, 100), 5
    )
    return People(np.full((120, 160, 3), level, np.uint8), CCP13, [one])


@pytest.fixture
def make_page(capfd):
    """A page of so many streams on a free port of this machine; closed afterwards, with nothing left."""
    opened = []
    before = set(threading.enumerate())

    def make(streams=1, address="127.0.0.1:0"):
        page = LivePage(parse_address(address))
        sinks = [page.stream(f"stream {number}", Source()) for number in range(streams)]
        for sink in sinks:
            sink.__enter__()
        opened.extend(sinks)
        return page, sinks

    yield make
    for sink in opened:
        sink.__exit__(None, None, None)
    assert set(threading.enumerate()) <= before
    assert not [line for line in capfd.readouterr().err.splitlines() if not line.startswith(("note: ", "warning: "))]


def get(page, path, **headers):
    """Status, headers, body."""
    connection = http.client.HTTPConnection("127.0.0.1", page.server.port, timeout=20)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080, True),
        ("8080", "127.0.0.1", 8080, True),
        (":8080", "", 8080, False),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        ("localhost:1", "localhost", 1, True),
        ("[::1]:8080", "::1", 8080, True),
        ("[::]:8080", "::", 8080, False),
        ("192.168.1.5:8080", "192.168.1.5", 8080, False),
        ("jetson.lan:8080", "jetson.lan", 8080, False),
        ("127.9.9.9:1", "127.9.9.9", 1, True),
    ],
)
def test_addresses(text, host, port, loopback):
    address = parse_address(text)
    assert (address.host, address.port, address.is_loopback) == (host, port, loopback)


@pytest.mark.parametrize(
    "text", ["", ":", "here", "127.0.0.1", "127.0.0.1:", "1:2:3", "host:99999", "http://a:80", "a b:80"]
)
def test_what_is_no_address(text):
    with pytest.raises(QanetError, match="not an address to serve on"):
        parse_address(text)


@pytest.mark.parametrize(
    ("served", "host", "answers"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080", True),
        ("127.0.0.1:8080", "localhost:8080", True),
        ("127.0.0.1:8080", "[::1]:8080", True),
        ("127.0.0.1:8080", "evil.example:8080", False),
        ("127.0.0.1:8080", "localhost:9000", True),
        ("127.0.0.1:8080", "127.0.0.1", True),
        ("127.0.0.1:8080", "127.0.0.1.evil.example:8080", False),
        ("127.0.0.1:8080", None, False),
        ("127.0.0.1:8080", "", False),
        ("127.0.0.1:8080", "192.168.1.5:8080", False),
        ("127.0.0.1:80", "localhost", True),
        (":8080", "192.168.1.5:8080", True),
        (":8080", "evil.example:8080", False),
        (":8080", f"{socket.gethostname()}:8080", True),
        (":8080", f"{socket.gethostname()}.local:8080", True),
        (":8080", f"{socket.gethostname()}.evil.example:8080", False),
        ("jetson.lan:8080", "jetson.lan:8080", True),
        (":8080", "a@192.168.1.5:8080", False),
    ],
)
def test_whom_it_answers(served, host, answers):
    assert parse_address(served).answers(host) is answers


def test_the_state_tells_frames_rate_stages_and_people(make_page):
    page, (sink,) = make_page()
    times = StageTimes()
    for duration_ms in (1.0, 2.0, 300.0):
        times.add("engine", duration_ms)
    page.describe({"model": "tiny", "precision": "fp32"}, [[times]])
    for index in range(5):
        sink.write(Frame(index, str(index), result().image), result())
        time.sleep(0.02)
    status, headers, body = get(page, "/state.json")
    assert status == 200 and headers["Content-Type"] == "application/json" and headers["Cache-Control"] == "no-store"
    state = json.loads(body)
    (stream,) = state["streams"]
    assert (state["model"], state["precision"], len(state["classes"])) == ("tiny", "fp32", 12)
    assert state["classes"][1] == {"class_id": 2, "class": "hair", "rgb": CCP13.colours_rgb[2].tolist()}
    assert (stream["frames"], stream["people_total"], stream["dropped"], stream["frame"]) == (5, 5, 3, 4)
    assert stream["stages_ms"] == {"engine": {"p50": 2.0, "n": 3}} and 0 < stream["frame_rate"] < 51
    (person,) = stream["people"]
    assert person["box_xyxy"] == [20, 20, 60, 100] and person["track_id"] == 5 and person["quality"] == 0.6
    assert {part["class"]: part["area_px"] for part in person["parts"]} == {"hair": 800, "upper-clothes": 2400}
    assert all("rle" not in part for part in person["parts"])


def test_before_the_first_frame_there_is_a_state_and_no_picture(make_page):
    page, _ = make_page()
    (stream,) = json.loads(get(page, "/state.json")[2])["streams"]
    assert stream["frame"] is None and stream["people"] == [] and stream["frame_rate"] == 0


def test_the_page_loads_nothing_from_elsewhere_and_nobody_may_load_it(make_page):
    page, _ = make_page()
    status, headers, body = get(page, "/")
    assert status == 200 and b"http" not in body and b"//" not in body.replace(b"// ", b"").split(b"<script>")[0]
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin" and headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/../../etc/passwd", 404),
        ("/%2e%2e/etc/passwd", 404),
        ("//etc/passwd", 404),
        ("/state.json/..", 404),
        ("/stream.mjpg?stream=7", 404),
        ("/stream.mjpg?stream=-1", 404),
        ("/picture.jpg?stream=x", 404),
        ("/picture.jpg?stream=99999999999999999999", 404),
        ("/favicon.ico", 404),
        ("/state.json?x=1", 200),
        ("/", 200),
    ],
)
def test_paths(make_page, path, status):
    page, _ = make_page()
    assert get(page, path)[0] == status


def test_a_request_by_another_name_is_refused(make_page):
    page, _ = make_page()
    for path in ("/", "/state.json", "/stream.mjpg"):
        status, _, body = get(page, path, Host=f"evil.example:{page.server.port}")
        assert status == 403 and b"people" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_takes_nothing(make_page, method):
    page, _ = make_page()
    connection = http.client.HTTPConnection("127.0.0.1", page.server.port, timeout=20)
    connection.request(method, "/state.json")
    assert connection.getresponse().status == 501
    connection.close()


def parts_of(stream, count):
    """The first JPEGs of a multipart answer."""
    pictures = []
    assert stream.readline().strip() == b"--qanet-frame"
    while len(pictures) < count:
        headers = dict(line.strip().split(b": ") for line in iter(stream.readline, b"\r\n"))
        assert headers[b"Content-Type"] == b"image/jpeg"
        pictures.append(stream.read(int(headers[b"Content-Length"])))
        assert stream.readline() == b"\r\n" and stream.readline().strip() == b"--qanet-frame"
    return pictures


def test_the_stream_has_the_newest_pictures_encoded_once_for_all_who_watch(make_page):
    page, (sink,) = make_page()
    for index in range(3):
        sink.write(Frame(index, str(index), result().image), result(50))
    assert page.feeds[0].encoded == 0  # nobody watches
    url = f"{page.server.url}stream.mjpg"
    with urllib.request.urlopen(url, timeout=20) as one, urllib.request.urlopen(url, timeout=20) as other:
        assert one.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=qanet-frame"
        first = [parts_of(one, 1)[0], parts_of(other, 1)[0]]
        assert first[0] == first[1] and page.feeds[0].encoded == 1
        picture = cv2.imdecode(np.frombuffer(first[0], np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (120, 160, 3) and np.abs(picture.astype(int) - result(50).draw()).mean() < 4


def test_a_stream_ends_with_its_source(make_page):
    page, (sink,) = make_page()
    sink.write(Frame(0, "0", result().image), result())
    with urllib.request.urlopen(f"{page.server.url}stream.mjpg", timeout=20) as stream:
        parts_of(stream, 1)
        page.feeds[0].end()
        assert stream.read() == b"--qanet-frame--\r\n"
    assert json.loads(get(page, "/state.json")[2])["streams"][0]["ended"] is True


def test_clients_who_read_nothing_hold_nobody_up(make_page):
    page, (sink,) = make_page()
    noise = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    big = People(noise, CCP13, [])
    lazy = []
    for _ in range(4):
        one = socket.create_connection(("127.0.0.1", page.server.port))
        one.sendall(f"GET /stream.mjpg HTTP/1.0\r\nHost: 127.0.0.1:{page.server.port}\r\n\r\n".encode())
        lazy.append(one)
    longest = 0.0
    for index in range(60):
        start = time.perf_counter()
        sink.write(Frame(index, str(index), noise), big)
        longest = max(longest, time.perf_counter() - start)
        time.sleep(0.005)
    assert page.feeds[0].encoded < 60 and longest < 2  # a send that waits would be 10 s
    start = time.monotonic()
    sink.__exit__(None, None, None)  # and the end does not wait for them either
    assert time.monotonic() - start < 6
    sink.__enter__()
    for one in lazy:
        one.close()


def connect(page, request=b""):
    """A client who sends just this."""
    client = socket.create_connection(("127.0.0.1", page.server.port), timeout=20)
    client.sendall(request.replace(b"HOST", f"Host: 127.0.0.1:{page.server.port}".encode()))
    return client


WATCH = b"GET /stream.mjpg HTTP/1.0\r\nHOST\r\n\r\n"
# What clients send who then wait: nothing, half a request, or all of it, to watch or to read nothing of the answer.
WAITING = {"silent": b"", "half a line": b"GET /sta", "no end of headers": b"GET / HTTP/1.0\r\nHOST\r\nA: b\r\n"}


@pytest.mark.parametrize("sent", WAITING.values(), ids=WAITING)
def test_who_asks_for_nothing_locks_nobody_out(make_page, sent):
    page, (sink,) = make_page()
    sink.write(Frame(0, "0", result().image), result())
    idle = [connect(page, sent) for _ in range(100)]
    assert [get(page, "/state.json")[0] for _ in range(5)] == [200] * 5
    for client in idle:
        client.close()


def test_a_full_page_says_so_and_serves_again_when_somebody_leaves(make_page):
    page, (sink,) = make_page()
    sink.write(Frame(0, "0", result().image), result())
    watching = [connect(page, WATCH) for _ in range(32)]
    for client in watching:
        assert client.recv(12) == b"HTTP/1.0 200"
    for _ in range(3):
        status, headers, body = get(page, "/state.json")
        assert (status, headers["Retry-After"], body) == (503, "5", b"Too many watch.\n")
    watching[0].close()
    deadline = time.monotonic() + 20
    while (status := get(page, "/state.json")[0]) == 503 and time.monotonic() < deadline:
        sink.write(Frame(1, "1", result().image), result())  # a picture that is sent notices who left
        time.sleep(0.05)
    assert status == 200
    for client in watching:
        client.close()


def test_who_asks_too_slowly_is_disconnected(make_page, monkeypatch):
    monkeypatch.setattr(server, "_ASK_S", 0.3)
    page, _ = make_page()
    client, start = connect(page, b"GET / HTTP/1.0\r\n"), time.monotonic()
    with pytest.raises(ConnectionError):  # a byte now and then does not help
        while time.monotonic() - start < 20:
            client.sendall(b"x")
            time.sleep(0.05)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("sent", [*WAITING.values(), WATCH], ids=[*WAITING, "watching"])
def test_clients_do_not_hold_up_the_end(make_page, sent):
    page, (sink,) = make_page()
    waiting = [connect(page, sent) for _ in range(32)]
    deadline = time.monotonic() + 20
    while len(page.server._http._clients) < 32:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    start = time.monotonic()
    sink.__exit__(None, None, None)
    assert time.monotonic() - start < 1.5  # 6.4 s when each had its own grace
    sink.__enter__()
    for client in waiting:
        client.close()


MALFORMED = (
    *(b"GET //[ HTTP/1.0", b"GET http://[::1 HTTP/1.1", b"GET /\xff\x00 HTTP/1.0", b"GET //[v1.x]/ HTTP/1.0", b"GET"),
    *(b"HEAD //] HTTP/1.0", b"GET / HTTP/9.9", b"GET / HTTP/x", b"GET  /  HTTP/1.0", b"GET /?stream=\xb2 HTTP/1.0"),
    *(b"\x16\x03\x01", b"G" * 70000),
)


@pytest.mark.parametrize("request_line", MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_request_is_answered_or_closed_and_prints_nothing(make_page, capfd, request_line):
    page, _ = make_page()
    for host in (b"HOST", b"Host: [::1", b"Host: \xff"):
        client = connect(page, request_line + b"\r\n" + host + b"\r\n\r\n")
        try:
            answer = b"".join(iter(lambda: client.recv(4096), b""))  # noqa: B023
        except ConnectionError:  # the server left some of it unread
            answer = b""
        assert answer[:9] in (b"", b"HTTP/1.0 ", b"<!DOCTYPE")  # (an error in the form of HTTP/0.9)
        client.close()
    assert get(page, "/")[0] == 200


def test_without_a_thread_to_give_a_client_is_refused(make_page, monkeypatch):
    page, _ = make_page()
    usual = threading.Thread.start

    def start(thread):
        if thread.name == "qanet-client":
            raise RuntimeError("can't start new thread")
        usual(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    assert get(page, "/")[0] == 503
    monkeypatch.undo()
    assert get(page, "/")[0] == 200


def test_streams_have_their_own_pictures_and_the_last_one_closes_the_page(make_page):
    page, sinks = make_page(2)
    for sink, level in zip(sinks, (20, 200)):
        sink.write(Frame(0, "0", result(level).image), result(level))
    for number, level in enumerate((20, 200)):
        picture = cv2.imdecode(np.frombuffer(get(page, f"/picture.jpg?stream={number}")[2], np.uint8), 1)
        assert np.abs(picture.astype(int) - result(level).draw()).mean() < 4
    sinks[0].__exit__(None, None, None)
    assert get(page, "/state.json")[0] == 200
    sinks[0].__enter__()
    assert [stream["name"] for stream in json.loads(get(page, "/state.json")[2])["streams"]] == ["stream 0", "stream 1"]


def test_a_port_in_use_is_one_clear_error_and_a_port_left_is_free(make_page):
    page, (sink,) = make_page()
    port = page.server.port
    taken = LivePage(parse_address(f"127.0.0.1:{port}"))
    with pytest.raises(QanetError, match=f"cannot serve on 127.0.0.1:{port} .expected .*, got Address already in use"):
        taken.stream("other", Source()).__enter__()
    sink.__exit__(None, None, None)
    again = LivePage(parse_address(f"127.0.0.1:{port}")).stream("again", Source())
    with again:
        pass
    sink.__enter__()


def test_a_host_that_is_not_ours_is_one_clear_error():
    for address in ("203.0.113.7:8080", "no-such-host.invalid:8080"):
        with pytest.raises(QanetError, match="cannot serve on .*expected an address of this machine and a free port"):
            LivePage(parse_address(address)).stream("x", Source()).__enter__()


@pytest.mark.parametrize(("address", "warned"), [("127.0.0.1:0", False), (":0", True), ("0.0.0.0:0", True)])
def test_the_network_is_warned_of(address, warned, capfd):
    with LivePage(parse_address(address)).stream("x", Source()):
        pass
    told = capfd.readouterr().err.splitlines()
    assert told[0].startswith("note: live page at http://127.0.0.1:") and len(told) == 1 + warned
    assert not warned or told[1].startswith("warning: anyone on the network can see the live page")


def start(*arguments):
    """`qanet parse` in a process of its own, and its page's address."""
    command = [sys.executable, "-m", "qanet", "parse", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("note: live page at "):
            return process, line.split()[-1]
    raise AssertionError(f"no page: {process.communicate()}")


def test_the_command_serves_until_ctrl_c_and_gives_the_port_back(make_clip, shared_tiny_bundle):
    process, url = start(
        make_clip(1200),
        "--model",
        shared_tiny_bundle,
        "--whole-image",
        "--serve",
        "127.0.0.1:0",
        "--json",
        "--threads",
        "1",
    )
    try:
        with urllib.request.urlopen(f"{url}stream.mjpg", timeout=30) as stream:
            assert cv2.imdecode(np.frombuffer(parts_of(stream, 2)[1], np.uint8), 1).shape == (120, 160, 3)
            state = json.load(urllib.request.urlopen(f"{url}state.json", timeout=30))
            assert state["model"] == "tiny" and state["streams"][0]["stages_ms"]["engine"]["n"] > 0
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in err and json.loads(out)["interrupted"] is True
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=5)


def test_a_page_of_one_image_is_refused(tmp_path, shared_tiny_bundle, capfd):
    from qanet.__main__ import main

    cv2.imwrite(str(tmp_path / "one.png"), np.zeros((20, 20, 3), np.uint8))
    arguments = ["--model", str(shared_tiny_bundle), "--whole-image", "--serve", "127.0.0.1:0"]
    assert main(["parse", str(tmp_path / "one.png"), *arguments]) == 2
    assert "--serve cannot show a single image" in capfd.readouterr().err


def test_the_port_is_checked_before_anything_is_parsed(make_clip, shared_tiny_bundle, capfd):
    from qanet.__main__ import main

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arguments = ["--model", str(shared_tiny_bundle), "--whole-image", "--serve", f"127.0.0.1:{port}"]
        assert main(["parse", str(make_clip(3)), *arguments]) == 2
    captured = capfd.readouterr()
    assert captured.out == "" and f"error: cannot serve on 127.0.0.1:{port}" in captured.err
