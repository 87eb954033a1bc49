"""Errors a user can act on: the fact, expected against got, and the next command."""


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
        return " ".join(text.split())


class QanetWarning(UserWarning):
    """A fact that a user should know and that stops nothing: commands print it as one line."""
