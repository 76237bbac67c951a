"""How values are shown in sentences to people."""

MOST = 80  # characters of a text that are shown


def shortened(value: object, *, most: int = MOST) -> str:
    """A value as Python writes it; of a long text its beginning, and how long all of it is."""
    if isinstance(value, str | bytes) and len(value) > most:
        return f"{value[:most]!r}... ({len(value):,} {_unit(value)})"
    shown = repr(value)
    return (
        shown if len(shown) <= 2 * most or isinstance(value, str | bytes) else shown[:most] + "..."
    )


def _unit(value: str | bytes) -> str:
    return "bytes" if isinstance(value, bytes) else "characters"
