"""The one family of errors that users cause; every command line prints them as one line, without a traceback."""


class InputError(ValueError):
    """Something the user gave cannot be used; the message names the thing, the finding, the expectation, the remedy."""
