"""A bucket that fails while a store is read: the right bytes or one sentence, never others."""

import asyncio
import dataclasses
import re
import types
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from cloud_storage import Bucket, Fault
from etils import epath

from imagen_jax.data.store import block_cache, cache_filler, records
from imagen_jax.data.store.block_cache import CacheSettings
from imagen_jax.data.store.store import Store
from imagen_jax.io import bucket_driver

pytestmark = pytest.mark.faults
COUNT, FOLDER = 60, "gs://bucket/pairs"
PASSING = {
    "429, Retry-After": {"code": 429, "retry_after": "1"},
    "503": {"code": 503},
    "502": {"code": 502},
    "cut in the middle": {"cut": 0.5},
    "cut at once": {"cut": 0.0},
    "no byte for a while": {"delay": 0.3},
}
LASTING = PASSING | {"403": {"code": 403}, "404": {"code": 404}}
KINDS = ("right", "sentence", "wrong")
SENTENCE = re.compile(rf"{FOLDER}\S* was not (read|listed) \([^()]+(\(s\))?\): [^\n]+")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less: the driver asks again for half a minute."""
    nap = types.SimpleNamespace(sleep=lambda seconds: asyncio.sleep(0))
    monkeypatch.setattr(bucket_driver, "asyncio", nap)
    monkeypatch.setattr(bucket_driver, "SILENCE", 0.1)
    monkeypatch.setattr(cache_filler, "PAUSE", 0.01)
    monkeypatch.setattr(block_cache, "BLOCK", 1 << 17)


def test_reading_under_faults(local: Store, bucket: Bucket, tmp_path: Path) -> None:
    for file in local.folder.iterdir():
        bucket.put(f"pairs/{file.name}", file.read_bytes())
    source = local.source()
    expected = [records.pack_record(source[index]) for index in range(COUNT)]
    rows, total = [], 0
    for way, size in (("copies", 1 << 30), ("ranges", 1 << 20)):
        for lasts, kinds in (("passing", PASSING), ("lasting", LASTING)):
            for kind, fault in kinds.items():
                cache = CacheSettings(folder=tmp_path / f"{way} {lasts} {kind}", size=size)
                remote = dataclasses.replace(local, folder=epath.Path(FOLDER), cache=cache)
                before = bucket.injected
                found = read_all(remote, bucket, expected, fault, lasting=lasts == "lasting")
                injected = bucket.injected - before
                assert injected
                assert not found["wrong"]
                assert found["sentence"] if lasts == "lasting" else found["right"] == COUNT
                total += injected
                rows.append((way, f"{kind}, {lasts}", injected, *map(found.get, KINDS)))
    assert total >= 200
    print("\n| records by | fault | faults | right records | sentences | wrong bytes |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
    print(f"{total} faults")


def read_all(
    remote: Store, bucket: Bucket, expected: list[bytes], fault: dict, *, lasting: bool
) -> Counter[str]:
    """Read the whole store, each record until it comes; where faults last only a few records."""
    records_there = remote.source()
    order = np.random.default_rng(0).permutation(COUNT)[: 5 if lasting else COUNT].tolist()
    found, said = Counter[str](dict.fromkeys(KINDS, 0)), list[str]()
    bucket.faults = [Fault("GET", "alt=media", 10_000 if lasting else 4, **fault)]
    for number, index in enumerate(order):
        if not lasting and number % 10 == 0:  # fewer at once than the driver asks again
            bucket.faults = [Fault("GET", "alt=media", 4, **fault)]
            records_there.prefetch(order[number : number + 10])
        try:
            same = records.pack_record(records_there[index]) == expected[index]
            found["right" if same else "wrong"] += 1
        except OSError as error:
            said.append(str(error))
    bucket.faults = []
    assert [sentence for sentence in said if not SENTENCE.fullmatch(sentence)] == []
    found["sentence"] = len(said)
    return found
