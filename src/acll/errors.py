"""The one kind of error that is the user's to mend, and how it quotes others."""


class UserError(ValueError):
    """Something in the configuration, the data or a file; the message says what, where and what to
    do.

    Steps and the command line print the message alone and end with exit code 1; anything else is a
    fault of this software and shows its traceback.
    """


def quoted(value: object, longest: int = 100) -> str:
    """What somebody else has written, as a part of a message: without line breaks and terminal
    escapes, and short."""
    text = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for letter in str(value)[: longest + 1]
    )
    return text if len(text) <= longest else f"{text[:longest]}…"
