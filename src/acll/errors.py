"""The one kind of error that is the user's to mend, and how text of others is printed."""

import difflib
import re

# Control characters, changes of direction, bytes that are no text: what clears a terminal, makes a
# name look like another one, or cannot be written at all.
ODD_LETTER = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class UserError(ValueError):
    """A fault in the configuration, the data or a file, which the user can mend.

    The message says what is wrong, where, and what to do. It may have several lines; whatever else
    it quotes from outside is harmless in it.

    Steps and the command line print the message alone and end with exit code 1; anything else is a
    fault of this software and shows its traceback.
    """

    def __init__(self, message: object = "") -> None:
        """Take the message, with its line breaks and without anything else that is odd."""
        super().__init__("\n".join(map(harmless, str(message).split("\n"))))


def harmless(text: object) -> str:
    r"""Return text from outside as it can be printed anywhere, in one line.

    Odd letters are written as in Python: `\x1b`, `\u202e`, `\udcff`.
    """
    return ODD_LETTER.sub(lambda odd: odd.group().encode("unicode_escape").decode(), str(text))


def quoted(value: object, longest: int = 100) -> str:
    """Return what somebody else has written, harmless, to be a part of a message.

    What is longer than `longest` is cut.
    """
    text = str(value)
    return harmless(text) if len(text) <= longest else f"{harmless(text[:longest])}…"


def suggestion(name: str, known: list[str]) -> str:
    """Return ` (did you mean …?)`; empty where no known name is close, in letters of any case."""
    lower = {each.lower(): each for each in reversed(known)}
    close = difflib.get_close_matches(name.lower(), list(lower), n=3, cutoff=0.6)
    close = [name.lower()] if name.lower() in lower else close
    return f" (did you mean {' or '.join(lower[each] for each in close)}?)" if close else ""
