"""Errors that several parts of the package raise and catch."""

UNREADABLE = "unreadable"


class CorruptDataError(ValueError):
    """The data read is not the data written: files are missing, cut short or changed."""

    reason = UNREADABLE  # the same words for all of a kind
