"""The one kind of error that is the user's to mend."""


class UserError(ValueError):
    """Something in the configuration, the data or a file; the message says what, where and what to do.

    Steps and the command line print the message alone and end with exit code 1; anything else is a fault of this
    software and shows its traceback.
    """
