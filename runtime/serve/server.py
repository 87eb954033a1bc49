"""The HTTP server of the live page: the page, a stream of JPEGs, the state as JSON; it serves nothing else."""

import base64
import contextlib
import functools
import hashlib
import json
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from qanet.errors import QanetError
from qanet.runtime.serve.address import Address
from qanet.runtime.serve.feed import Feed

_STALL_S = 10.0  # a client that accepts no data for this long is disconnected
_ASK_S = 5.0  # a client that has not sent a whole request by then is disconnected
_LEAST_GAP_S = 0.04  # between pictures
_MAX_CLIENTS = 32
_FINISH_S = 0.2  # for all answers together, when the page ends
_REFUSED_S = 1.0  # a refused client has this long to read why
_FULL = b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Type: text/plain\r\n\r\nToo many watch.\n"
_SEND_BUFFER_BYTES = 2**17
_END_S = 2.0
_BOUNDARY = "qanet-frame"
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@functools.cache
def page_html() -> str:
    """The live page: one HTML document that loads only its own pictures and numbers."""
    return Path(__file__).with_name("page.html").read_text(encoding="utf-8")


@functools.cache
def page_policy() -> str:
    """Content security policy: only the style and the script of the page run, and no other page may embed it."""

    def digests(tag: str) -> str:
        bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", page_html(), re.DOTALL)
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(b.encode()).digest()).decode()}'" for b in bodies)

    return (
        f"default-src 'none'; script-src {digests('script')}; style-src {digests('style')}; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


class Server:
    """Serves feeds from its own threads between `start` and `close`.

    Args:
        address: to listen on.
        feeds: in the order of the streams.
        state: returns the content of state.json.
    Raises:
        QanetError: the address cannot be listened on.
    """

    def __init__(self, address: Address, feeds: list[Feed], state: Callable[[], dict[str, Any]]):
        self.address = address
        try:
            self._http = _HttpServer(address, feeds, state)
        except OSError as error:
            where = f"{address.host}:{address.port}"
            raise QanetError(
                f"cannot serve on {where}",
                expected="an address of this machine and a free port",
                got=error.strerror or error,
                next_command="--serve 127.0.0.1:0 takes any free port",
            ) from error
        except OverflowError as error:
            raise QanetError(f"cannot serve on port {address.port}", expected="a port up to 65535") from error
        self.port = int(self._http.server_address[1])
        self.url = address.url(self.port)
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, name="qanet-serve", daemon=True
        )

    def start(self) -> None:
        """Start answering."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering, disconnect all clients and release the port."""
        if self._thread.is_alive():
            self._http.shutdown()
        self._http.server_close()
        self._http.cut_off()
        if self._thread.is_alive():
            self._thread.join(_END_S)


@dataclass
class _Client:
    """A connection and its thread; it is idle until its request is there."""

    socket: socket.socket
    thread: threading.Thread
    since_s: float
    is_idle: bool = True
    is_cut: bool = False

    def cut(self) -> None:
        """End the connection, which ends its thread."""
        self.is_cut = True
        with contextlib.suppress(OSError):  # gone already
            self.socket.shutdown(socket.SHUT_RDWR)


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 2 * _MAX_CLIENTS  # Python's 5 makes clients who come together wait a second or more

    def __init__(self, address: Address, feeds: list[Feed], state: Callable[[], dict[str, Any]]):
        self.address_family = address.family
        self.address, self.feeds, self.state = address, feeds, state
        self._clients: dict[socket.socket, _Client] = {}
        self._refused: deque[tuple[float, socket.socket]] = deque()  # when, and who; this thread's alone
        self._lock = threading.Lock()
        super().__init__((address.host, address.port), _Handler)

    def server_bind(self) -> None:
        """Bind without looking up the host name, which can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port just left, not one in use
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.address.host, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a new thread; where there are too many, the longest idle one goes, and without one the new."""
        thread = threading.Thread(target=self._serve, args=(request, client_address), name="qanet-client", daemon=True)
        with self._lock:
            connected = [client for client in self._clients.values() if not client.is_cut]
            if len(connected) >= _MAX_CLIENTS:
                idle = next((client for client in connected if client.is_idle), None)
                if idle is None:
                    return self._refuse(request)
                idle.cut()
            self._clients[request] = _Client(request, thread, time.monotonic())
        try:
            thread.start()
        except RuntimeError:  # the system has no thread to give
            with self._lock:
                del self._clients[request]
            self._refuse(request)

    def _serve(self, request: Any, client_address: Any) -> None:
        try:
            with contextlib.suppress(OSError):  # the client went away
                self.finish_request(request, client_address)
        finally:
            self.shutdown_request(request)
            with self._lock:
                self._clients.pop(request, None)

    def asked(self, request: Any) -> None:
        """Note that a client's request is there."""
        with self._lock:
            if request in self._clients:
                self._clients[request].is_idle = False

    def _refuse(self, request: socket.socket) -> None:
        """Say that the page is full. The connection closes later: at once, what it says would often be lost."""
        request.setblocking(False)
        with contextlib.suppress(OSError):
            request.send(_FULL)
            request.shutdown(socket.SHUT_WR)
        self._refused.append((time.monotonic(), request))
        if len(self._refused) > _MAX_CLIENTS:
            self.close_request(self._refused.popleft()[1])

    def service_actions(self) -> None:
        """Several times a second: disconnect who asks for nothing, and close who was refused."""
        now = time.monotonic()
        with self._lock:
            for client in self._clients.values():
                if client.is_idle and now - client.since_s > _ASK_S:
                    client.cut()
        while self._refused and now - self._refused[0][0] > _REFUSED_S:
            self.close_request(self._refused.popleft()[1])

    def cut_off(self) -> None:
        """Close all connections and wait for their threads."""
        begin = time.monotonic()
        with self._lock:
            clients = list(self._clients.values())
        for client in clients:
            if not client.is_idle:
                client.thread.join(max(0.0, begin + _FINISH_S - time.monotonic()))
        for client in clients:
            client.cut()
        for client in clients:
            client.thread.join(max(0.0, begin + _END_S - time.monotonic()))
        while self._refused:
            self.close_request(self._refused.popleft()[1])


class _Handler(BaseHTTPRequestHandler):
    server: _HttpServer
    timeout = _STALL_S
    server_version, sys_version = "qanet", ""

    def setup(self) -> None:
        """Limit the send buffer, so that a slow client gets new pictures instead of a queue of old ones."""
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        super().setup()

    def parse_request(self) -> bool:
        """Read the request; one whose target is no address is answered here."""
        if not super().parse_request():
            return False
        self.server.asked(self.request)
        try:
            self._url = urlsplit(self.path)
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST, "Not an address")
            return False
        return True

    def do_GET(self) -> None:
        """Answer a request."""
        http, url = self.server, self._url
        if not http.address.answers(self.headers.get("Host")):
            self.send_error(HTTPStatus.FORBIDDEN, "This page answers to its own address only")
            return
        if url.path == "/":
            self._send("text/html; charset=utf-8", page_html().encode())
        elif url.path == "/state.json":
            self._send("application/json", json.dumps(http.state(), allow_nan=False).encode())
        elif url.path in ("/stream.mjpg", "/picture.jpg"):
            feed = self._feed(url.query)
            if feed is None:
                self.send_error(HTTPStatus.NOT_FOUND, "No such stream")
            elif url.path == "/picture.jpg" or self.command == "HEAD":
                self._picture(feed)
            else:
                self._stream(feed)
        else:
            self.send_error(HTTPStatus.NOT_FOUND, "Nothing here")

    do_HEAD = do_GET

    def _feed(self, query: str) -> Feed | None:
        """The feed of a stream number; the first if none is given."""
        number = parse_qs(query).get("stream", ["0"])[-1]
        feeds = self.server.feeds
        return feeds[int(number)] if number.isdecimal() and len(number) < 4 and int(number) < len(feeds) else None

    def _send(self, kind: str, body: bytes) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _picture(self, feed: Feed) -> None:
        found = feed.picture(timeout_s=_STALL_S)
        if found is None:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "No picture yet")
        else:
            self._send("image/jpeg", found[1])

    def _stream(self, feed: Feed) -> None:
        """Send the newest picture repeatedly; a browser shows a part when the boundary after it arrives."""
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        self.end_headers()
        self.wfile.write(f"--{_BOUNDARY}\r\n".encode())
        number = 0
        while True:
            start = time.monotonic()
            found = feed.picture(number, timeout_s=_STALL_S)
            if found is None:
                if feed.ended:
                    self.wfile.write(f"--{_BOUNDARY}--\r\n".encode())
                    return
                found = feed.picture()  # send the last picture again, to notice a lost client
                if found is None:
                    continue
            number, picture = found
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n".encode()
            self.wfile.write(head + picture + f"\r\n--{_BOUNDARY}\r\n".encode())
            time.sleep(max(0.0, _LEAST_GAP_S - (time.monotonic() - start)))

    def end_headers(self) -> None:
        """Add the headers of every answer, errors included."""
        for name, value in (*_HEADERS.items(), ("Content-Security-Policy", page_policy())):
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the terminal shows the progress of the run."""
