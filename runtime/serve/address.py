"""The address of the live page, and which requests it answers."""

import ipaddress
import re
import socket
from dataclasses import dataclass

from qanet.errors import QanetError

_EXPECTED = "HOST:PORT such as 127.0.0.1:8080, or a port on this machine alone"


@dataclass(frozen=True)
class Address:
    """A host, "" for all addresses of the machine, and a port, 0 for any free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        ip = _ip(self.host)
        return ip is not None and ip.is_loopback

    @property
    def family(self) -> socket.AddressFamily:
        """IPv6 if the host is an IPv6 address."""
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    def url(self, port: int) -> str:
        """The address of the page for a browser on this machine."""
        host = "127.0.0.1" if self.host in ("", "0.0.0.0") else "::1" if self.host == "::" else self.host
        return f"http://{_bracketed(host)}:{port}/"

    def answers(self, host_header: str | None) -> bool:
        """Whether a request with this Host header may be answered.

        A foreign page can point its own domain to this machine, to read the live page in the user's browser (DNS
        rebinding); such a request names that domain. IP addresses, localhost and the name of this machine are safe.
        The port may differ, as through a tunnel.
        """
        found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@/\s]+)(?::(\d{1,5}))?", host_header or "")
        if found is None:
            return False
        name = found[1].strip("[]").lower().rstrip(".")
        ip = _ip(name)
        if self.is_loopback:
            return name in ("localhost", self.host.lower()) or (ip is not None and ip.is_loopback)
        own = socket.gethostname().lower()
        return ip is not None or name in ("localhost", self.host.lower(), own, f"{own}.local")


def parse_address(text: str) -> Address:
    """HOST:PORT, [IPV6]:PORT, :PORT for all of the machine's addresses, or PORT for this machine alone.

    Raises:
        QanetError: another form.
    """
    found = re.fullmatch(r"(?:(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]*):)?(\d{1,5})", text)
    if found is None or int(found[2]) > 65535:
        raise QanetError("not an address to serve on", expected=_EXPECTED, got=repr(text))
    host = "127.0.0.1" if found[1] is None else found[1].strip("[]")
    return Address(host, int(found[2]))


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
