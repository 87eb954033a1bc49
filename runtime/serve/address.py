"""Where the live page is served, and to whom it answers."""

import ipaddress
import re
import socket
from dataclasses import dataclass

from qanet.errors import QanetError

_EXPECTED = "HOST:PORT such as 127.0.0.1:8080, or a port on this machine alone"


@dataclass(frozen=True)
class Address:
    """A host, "" for all of the machine's, and a port, 0 for any that is free."""

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
        """IPv6 where the host is written so."""
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    def url(self, port: int) -> str:
        """The page's address as a browser on this machine takes it."""
        host = "127.0.0.1" if self.host in ("", "0.0.0.0") else "::1" if self.host == "::" else self.host
        return f"http://{_bracketed(host)}:{port}/"

    def answers(self, host_header: str | None) -> bool:
        """Whether a request that names this host is meant for us.

        A page of somebody else's may make its own name point to this machine, to read in the user's browser what only
        the user may see (DNS rebinding); such a request names that host. Nobody can do so with an IP address, with
        localhost, or with the name of this machine. The port may be another: a tunnel's.
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
        QanetError: nothing of the kind.
    """
    found = re.fullmatch(r"(?:(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]*):)?(\d{1,5})", text)
    if found is None or int(found[2]) > 65535:
        raise QanetError("no address to serve on", expected=_EXPECTED, got=repr(text))
    host = "127.0.0.1" if found[1] is None else found[1].strip("[]")
    return Address(host, int(found[2]))


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
