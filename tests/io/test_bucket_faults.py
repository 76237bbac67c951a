"""A bucket that refuses, fails, stalls and cuts: asked again where it helps, then one sentence."""

import asyncio
import socket
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cloud_storage import Bucket, Fault

from imagen_jax.io import bucket_driver, buckets, further_tries, workdir

NAME, CONTENT = "gs://bucket/a/x", bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver waits 31 seconds in all before it gives up."""
    nap = types.SimpleNamespace(sleep=lambda seconds: asyncio.sleep(0))
    monkeypatch.setattr(bucket_driver, "asyncio", nap)


DEEDS: dict[str, tuple[str, Callable[[], object], object]] = {
    "read": ("GET", lambda: buckets.read(NAME), CONTENT),
    "read a range": ("GET", lambda: buckets.read(NAME, 5, 5000), CONTENT[5:5000]),
    "open": ("GET", lambda: buckets.open_object(NAME).read(), CONTENT),
    "list below": ("GET", lambda: [x.path for x in buckets.list_below("gs://bucket/a")], [NAME]),
    "list a folder": (
        "GET",
        lambda: [x.path for x in buckets.list_folder("gs://bucket/a")],
        [NAME],
    ),
    "glob": ("GET", lambda: [x.path for x in buckets.glob("gs://bucket/a/*")], [NAME]),
    "create": ("POST", lambda: buckets.create("gs://bucket/a/y", b"new"), None),
    "write": ("POST", lambda: buckets.write("gs://bucket/a/y", b"new"), None),
    "delete": ("DELETE", lambda: buckets.delete(NAME), None),
}


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize(
    ("code", "says"),
    [
        (403, r"\(403 Forbidden\): ask for the role roles/storage.objectUser"),
        (401, r"\(401, you are not signed in\): sign in with `gcloud auth"),
        (429, r"\(429 Too Many Requests, again and again\): wait, then give the same command"),
        (500, r"\(500, the server's failure, again and again\): wait, then give the same command"),
        (502, r"\(502, the server's failure, again and again\): wait"),
        (503, r"\(503, the server's failure, again and again\): wait"),
    ],
)
def test_a_lasting_refusal_is_one_sentence(
    bucket: Bucket, caplog: pytest.LogCaptureFixture, deed: str, code: int, says: str
) -> None:
    bucket.put("a/x", CONTENT)
    method, do, _ = DEEDS[deed]
    bucket.faults = [Fault(method, times=100, code=code, retry_after="1")]
    with pytest.raises(
        OSError, match=rf"^gs://bucket/a\S* was not (read|listed|written|deleted) {says}"
    ) as e:
        do()
    assert "\n" not in str(e.value)
    assert bucket.names() == ["a/x"]
    assert not [record for record in caplog.records if record.name == "gcsfs"]


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize(
    "fault",
    [
        Fault(code=503, times=2),
        Fault(code=429, retry_after="1"),
        Fault(code=502),
        Fault(cut=0.5),
        Fault(cut=0.5, times=3),
    ],
    ids=str,
)
def test_a_passing_failure_changes_nothing(bucket: Bucket, deed: str, fault: Fault) -> None:
    bucket.put("a/x", CONTENT)
    method, do, expected = DEEDS[deed]
    wanted = fault.times
    bucket.faults = [Fault(method, "", wanted, fault.code, fault.retry_after, fault.cut)]
    assert do() == expected
    has_body = method != "DELETE" or fault.code is not None
    assert bucket.injected == (wanted if has_body else 1)
    assert ("a/x" in bucket.objects) == (deed != "delete")
    if method == "POST":
        assert bucket.objects["a/y"][1] == b"new"


@pytest.mark.parametrize("deed", [name for name in DEEDS if name.startswith(("read", "open"))])
def test_an_answer_that_is_always_cut_is_never_taken_for_whole(bucket: Bucket, deed: str) -> None:
    bucket.put("a/x", CONTENT)
    bucket.faults = [Fault("GET", "alt=media", 100, cut=0.5)]
    with pytest.raises(OSError, match=r"gs://bucket/a/x was not read \(the answer was cut short\)"):
        DEEDS[deed][1]()


def test_silence_is_given_up(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_driver, "SILENCE", 0.05)
    bucket.put("a/x", CONTENT)
    bucket.faults = [Fault("GET", "alt=media", 1, delay=0.3)]
    assert buckets.read(NAME) == CONTENT
    bucket.faults = [Fault("GET", "alt=media", 100, delay=0.3)]
    with pytest.raises(OSError, match=r"gs://bucket/a/x was not read \(no answer in time\): look"):
        buckets.read(NAME)


@pytest.mark.parametrize("address", [NAME, "gs://bucket/a"])
def test_an_object_that_is_not_there_is_a_missing_file(bucket: Bucket, address: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"^{address} was not read \(404, it is not there"):
        buckets.read(address)
    with pytest.raises(FileNotFoundError, match=rf"^{address} was not read \(404"):
        buckets.open_object(address)
    buckets.delete(address)
    assert list(buckets.list_folder(address)) == list(buckets.list_below(address)) == []


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # it is the driver's
@pytest.mark.parametrize("size", [3, 6 << 20])
@pytest.mark.parametrize("from_file", [False, True])
def test_an_object_is_created_once(
    bucket: Bucket, tmp_path: Path, size: int, from_file: bool
) -> None:
    def make(content: bytes) -> bytes | Path:
        (tmp_path / "file").write_bytes(content)
        return tmp_path / "file" if from_file else content

    buckets.create(NAME, make(b"a" * size))
    before = bucket.objects["a/x"]
    buckets.create(NAME, make(b"a" * size))  # another process of the same work
    for other in (b"b" * size, b"a" * (size - 1)):
        with pytest.raises(FileExistsError, match=r"^gs://bucket/a/x is there already, with other"):
            buckets.create(NAME, make(other))
    assert bucket.objects["a/x"] == before


def test_each_further_try_is_said(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(further_tries, "QUIET", 0.0)
    bucket.put("a/x", CONTENT)
    bucket.faults = [Fault("GET", times=100, code=503)]
    with pytest.raises(OSError, match="503"):
        buckets.read(NAME)
    reason = "did not answer (503, the server's failure): asking again"
    assert capsys.readouterr().err.splitlines() == [
        f"{NAME} {reason}, {number} of 6" for number in range(2, 7)
    ]
    place = workdir.as_path("gs://bucket/a")
    assert not isinstance(place, Path)
    cut = "gs://bucket did not answer (the answer was cut short): asking again, 2 of 6"
    bucket.faults = [Fault("GET", code=503), Fault("POST", cut=0.5)]
    assert (place / "x").read_bytes() == CONTENT  # by way of epath
    assert list(buckets.list_folder("gs://bucket/a"))
    (place / "y").write_bytes(b"new")
    assert capsys.readouterr().err.splitlines() == [f"{NAME} {reason}, 2 of 6", cut]


def test_a_bucket_that_cannot_be_reached_is_said_once_by_many_threads(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", closed)
    monkeypatch.setattr(further_tries, "QUIET", 600.0)
    monkeypatch.setattr(further_tries, "_LINES", further_tries._Lines())
    with ThreadPoolExecutor(8) as pool:
        failed = [pool.submit(buckets.read, NAME).exception() for _ in range(8)]
    assert all("was not read (Cannot connect to host" in str(error) for error in failed)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"{NAME} did not answer (Cannot connect to host 127.0.0.1")
    assert line.endswith("asking again, 2 of 6")


@pytest.mark.parametrize(
    ("asked", "waits"),
    [
        ("", [1, 2, 4, 8, 16]),
        ("3", [3, 3, 4, 8, 16]),
        ("20", [20, 10, 4, 8, 16]),  # no more than half a minute in all
        ("1000000", [30, 2, 4, 8, 16]),
        ("-5", [1, 2, 4, 8, 16]),
        ("nan", [1, 2, 4, 8, 16]),
    ],
)
def test_a_wait_that_is_asked_for_is_kept(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, asked: str, waits: list[int]
) -> None:
    slept = []

    async def nap(seconds: float) -> None:
        slept.append(int(seconds))

    monkeypatch.setattr(bucket_driver, "asyncio", types.SimpleNamespace(sleep=nap))
    monkeypatch.setattr(bucket_driver, "random", types.SimpleNamespace(random=lambda: 0.5))
    bucket.put("a/x", CONTENT)
    bucket.faults = [Fault("GET", times=5, code=429, retry_after=asked)]
    assert buckets.read(NAME) == CONTENT
    assert slept == waits


def test_ranges_are_of_the_object_that_was_found(bucket: Bucket) -> None:
    bucket.put("a/x", CONTENT)
    (found,) = buckets.list_folder("gs://bucket/a")
    assert buckets.read_range(found, 5, 5000) == CONTENT[5:5000]
    assert buckets.read_range(found, 7, 7) == b""
    file = buckets.open_object(NAME)
    bucket.put("a/x", CONTENT[::-1])
    for read in (lambda: buckets.read_range(found, 5, 5000), file.read):
        with pytest.raises(OSError, match=r"^gs://bucket/a/x was written again, or deleted, while"):
            read()
    del bucket.objects["a/x"]
    with pytest.raises(OSError, match=r"^gs://bucket/a/x was written again, or deleted, while"):
        buckets.read_range(found, 5, 5000)


def test_an_answer_that_was_lost_is_no_other_object(bucket: Bucket) -> None:
    bucket.faults = [Fault("POST", code=503, lost=True)]
    buckets.create(NAME, CONTENT)
    assert bucket.objects["a/x"][1] == CONTENT


def test_a_listing_is_fresh_and_one_request(bucket: Bucket) -> None:
    for name in ("a/x", "a/y", "a/below/z", "ab/w"):
        bucket.put(name, b"123")
    assert [(x.path, x.size) for x in buckets.list_folder("gs://bucket/a")] == [
        ("gs://bucket/a/x", 3),
        ("gs://bucket/a/y", 3),
    ]
    assert len(bucket.requests) == 1
    bucket.put("a/z", b"")  # by another process
    assert len(list(buckets.list_folder("gs://bucket/a"))) == 3


def test_an_opened_object_is_read_in_blocks_and_sought(bucket: Bucket) -> None:
    content = CONTENT * 500
    bucket.put("a/x", content)
    with buckets.open_object(NAME) as file:
        assert file.read(10) == content[:10]
        assert file.read(1000) == content[10:1010]
        file.seek(-20, 2)
        assert file.read() == content[-20:]
        assert file.read() == b""
    assert len([x for x in bucket.requests if "alt=media" in x]) == 2
