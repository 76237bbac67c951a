"""A side of the comparison that is not installed, for a process of its own to find."""


def missing(shapes):
    from _peer_shapes import Missing

    raise Missing("nobody is not installed: pip install nobody")
