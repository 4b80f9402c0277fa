"""What preparing and reading data can raise."""

from acll.errors import UserError


class DataError(UserError):
    """The data cannot be used as they are; the message names the files and says what to do."""
