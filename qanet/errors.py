"""Errors a user can act on: the fact, expected against got, and the next command."""

import re

_NOT_UTF8 = re.compile(r"\A[^\ud800-\udc7f\udd00-\udfff]*\Z")  # surrogates, if any, are those of os.fsdecode
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    r"""Text that every terminal and JSON reader takes: control characters, and the bytes of a file name that are not
    UTF-8, as \xe9. Lines stay lines.

    >>> print(printable("caf\udce9.jpg"), printable("\x1b[2J"))
    caf\xe9.jpg \x1b[2J
    """
    if not text.isprintable():
        data = text.encode("utf-8", "surrogateescape" if _NOT_UTF8.search(text) else "backslashreplace")
        text = data.decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class QanetError(Exception):
    """A user's mistake or a broken input: printed as one line, never as a traceback; the command exits with 2.

    Args:
        fact: what is wrong, with the name of the thing it is about.
        expected: what would have been right.
        got: what was found instead.
        next_command: what to type or do next.
    """

    def __init__(self, fact: str, *, expected: object = None, got: object = None, next_command: str | None = None):
        self.fact = fact
        self.expected = expected
        self.got = got
        self.next_command = next_command
        super().__init__(self.line())

    def line(self, with_next: bool = True) -> str:
        """The whole error on one line; `with_next=False` leaves the next command out.

        >>> QanetError("bad --threads", expected="1 or more", got=0, next_command="qanet parse --help").line()
        'bad --threads (expected 1 or more, got 0); next: qanet parse --help'
        """
        text = self.fact
        facts = (("expected", self.expected), ("got", self.got))
        known = ", ".join(f"{name} {value}" for name, value in facts if value is not None)
        if known:
            text += f" ({known})"
        if self.next_command and with_next:
            text += f"; next: {self.next_command}"
        return printable(" ".join(text.split()))


class QanetWarning(UserWarning):
    """A fact that a user should know and that stops nothing: commands print it as one line."""
