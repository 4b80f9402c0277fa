"""The one kind of error that is the user's to mend, and how it quotes others."""


class UserError(ValueError):
    """A fault in the configuration, the data or a file, which the user can mend.

    The message says what is wrong, where, and what to do.

    Steps and the command line print the message alone and end with exit code 1; anything else is a
    fault of this software and shows its traceback.
    """


def quoted(value: object, longest: int = 100) -> str:
    """Return what somebody else has written, to be a part of a message.

    Line breaks and terminal escapes are replaced; what is longer than `longest` is cut.
    """
    text = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for letter in str(value)[: longest + 1]
    )
    return text if len(text) <= longest else f"{text[:longest]}…"
