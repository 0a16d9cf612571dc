"""One append on its way to a server: written, decided anew where others were first, sent again where it was cut off."""


class Lost(Exception):
    """The connection broke, and it is not known whether what was to be committed was."""


class Broken(Exception):
    """The connection broke inside a transaction: nothing of that was written."""
