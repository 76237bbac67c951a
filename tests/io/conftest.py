"""A bucket for tests of several files."""

from collections.abc import Iterator

import cloud_storage
import pytest


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[cloud_storage.Bucket]:
    """`gs://bucket`, in memory, for this process."""
    with cloud_storage.serve_here(monkeypatch) as held:
        yield held
