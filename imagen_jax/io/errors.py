"""Errors that several parts of the package raise and catch."""

UNREADABLE = "unreadable"


class CorruptDataError(ValueError):
    """What was read is not what was written: files that are missing, cut short or changed."""

    reason = UNREADABLE  # the same words for all of a kind
