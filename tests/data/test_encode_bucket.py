"""`imagen encode` and `imagen data build` into a bucket: by one, by several hosts, and killed."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cloud_storage
import jpegs
import pytest
from host_processes import Hosts, end, kill

from imagen_jax.cli import encode
from imagen_jax.config.load import from_json
from imagen_jax.data.store import store

PHOTOS, SMALL = 12, {4, 11}
OUT = "gs://bucket/pairs"
OPTIONS = ["--encoder", "t5_1_1_tiny", "--sizes", "8", "16", "--max-length", "32"]
OPTIONS += ["--shard-records", "1"]
ENV = {"JAX_PLATFORMS": "cpu", "NO_GCE_CHECK": "true"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of photos, two of which are too small, next to a file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    for index in range(PHOTOS):
        size = (10, 15) if index in SMALL else (40, 30 + index)
        (folder / f"{index:02d}.jpg").write_bytes(jpegs.photo(size, seed=index))
        (folder / f"{index:02d}.txt").write_text(f"photo number {index}")
    (folder / "nothing.jpg").write_bytes(jpegs.photo((20, 20), seed=99))  # without a caption
    return f"folder:{folder}"


@pytest.fixture(scope="module")
def encoded(photos: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The store that one process writes into a folder; as users', not as this suite's, compiles."""
    folder = tmp_path_factory.mktemp("one")
    end([Hosts(folder, ENV).run(["encode", photos, *OPTIONS, "--out", str(folder / "pairs")])])
    return files(folder / "pairs")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def contents(bucket: cloud_storage.Bucket) -> dict[str, bytes]:
    with bucket.lock:
        return {n.removeprefix("pairs/"): bucket.objects[n][1] for n in bucket.names("pairs/")}


def test_one_process_writes_what_it_writes_into_a_folder(
    photos: str, bucket: cloud_storage.Bucket, tmp_path: Path
) -> None:
    encode.run([photos, *OPTIONS, "--out", str(tmp_path / "pairs")])
    encode.run([photos, *OPTIONS, "--out", OUT])
    encoded = files(tmp_path / "pairs")
    assert contents(bucket) == encoded
    assert "skipped.jsonl" in encoded
    assert not list(Path().glob("gs:*"))
    encode.run([photos, *OPTIONS, "--out", OUT])  # which leaves a finished store alone
    assert contents(bucket) == encoded
    with pytest.raises(ValueError, match=rf"{OUT} holds another encoding: max_length 32 there, 16"):
        encode.run([photos, *OPTIONS, "--max-length", "16", "--out", OUT])


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Hosts, cloud_storage.Bucket]]:
    """Two hosts and the bucket that both see."""
    with cloud_storage.serve() as (bucket, env):
        made = Hosts(tmp_path, env | ENV)
        yield made, bucket
        made.stop()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("more", [["--workers", "2"], ["--beam"]])
def test_build_writes_the_same(
    photos: str,
    encoded: dict[str, bytes],
    hosts: tuple[Hosts, cloud_storage.Bucket],
    more: list[str],
) -> None:
    if more == ["--beam"]:
        pytest.importorskip("apache_beam")
    one, bucket = hosts
    end([one.run(["data", "build", photos, *OPTIONS, "--out", OUT, *more])])
    assert contents(bucket) == encoded


@pytest.mark.slow
def test_two_hosts_write_one_store_into_a_bucket(
    photos: str, encoded: dict[str, bytes], hosts: tuple[Hosts, cloud_storage.Bucket]
) -> None:
    both, bucket = hosts
    end(both.start(["encode", photos, *OPTIONS, "--out", OUT]))
    assert contents(bucket) == encoded
    for number in range(2):
        assert not list((both.folders[number]).glob("[!dh]*"))  # `data` has indices, `home` copies
    said = end(both.start(["encode", photos, *OPTIONS, "--max-length", "16", "--out", OUT]), code=1)
    assert all("holds another encoding: max_length 32 there, 16 wanted" in one for one in said)
    assert contents(bucket) == encoded


@pytest.mark.faults
@pytest.mark.parametrize("killed", [0, 1])
def test_a_host_that_is_killed_costs_its_shard_alone(
    photos: str, encoded: dict[str, bytes], hosts: tuple[Hosts, cloud_storage.Bucket], killed: int
) -> None:
    both, bucket = hosts
    bucket.latency = 0.05
    processes = both.start(["encode", photos, *OPTIONS, "--out", OUT])
    wait_until(lambda: len(bucket.names("pairs/records-")) >= 3)
    kill(processes[killed])
    for process in processes:
        process.communicate(timeout=300)
    before = contents(bucket)
    assert store.INDEX not in before
    whole = {name for name in before if name.startswith("records-")}
    assert 3 <= len(whole) < PHOTOS
    assert {name: before[name] for name in whole} == {name: encoded[name] for name in whole}
    written = {name: bucket.objects[f"pairs/{name}"][0] for name in whole}
    bucket.latency = 0.0
    end(both.start(["encode", photos, *OPTIONS, "--out", OUT]))
    assert contents(bucket) == encoded
    after = {name: bucket.objects[f"pairs/{name}"][0] for name in whole}
    assert after == written  # nothing is done again


@pytest.mark.slow
def test_two_hosts_without_a_shared_folder_are_refused(
    photos: str,
    encoded: dict[str, bytes],
    hosts: tuple[Hosts, cloud_storage.Bucket],
    tmp_path: Path,
) -> None:
    both, _ = hosts
    said = end(both.start(["encode", photos, *OPTIONS, "--out", "pairs"]), code=1)
    for one in said:
        assert re.search(
            r"pairs is not one folder for all 2 processes: what process 0 writes there is not seen "
            r"by 1; write to a bucket \(--out gs://...\), to a folder of a file system",
            one,
        )
    assert not list(tmp_path.glob("host*/pairs"))
    end(both.start(["encode", photos, *OPTIONS, "--out", str(tmp_path / "shared" / "pairs")]))
    assert files(tmp_path / "shared" / "pairs") == encoded


@pytest.mark.slow
def test_a_bucket_that_refuses_ends_the_command_with_a_sentence(
    photos: str, hosts: tuple[Hosts, cloud_storage.Bucket]
) -> None:
    one, bucket = hosts
    bucket.refuses = "records-00003"
    process = one.run(["encode", photos, *OPTIONS, "--out", OUT])
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert "Traceback" not in err
    assert (
        err.strip()
        .splitlines()[-1]
        .startswith(
            f"imagen encode: error: {OUT}/records-00003-of-00012.array_record was not written "
            "(403 Forbidden): ask for the role roles/storage.objectUser"
        )
    )
    assert len(bucket.names("pairs/records-")) == 3


@pytest.mark.slow
def test_a_run_trains_on_pairs_in_a_bucket_as_on_those_in_a_folder(
    hosts: tuple[Hosts, cloud_storage.Bucket], tmp_path: Path
) -> None:
    one, _ = hosts
    one.env["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # compiling takes most of the time
    end([one.run(["data", "build", "shapes/tiny", "--workers", "1"])])
    losses = []
    for place in (str(tmp_path / "pairs"), OUT):
        end([one.run(["encode", "shapes/tiny", "--for", "tiny/base8", "--out", place])])
        run = tmp_path / f"run{len(losses)}"
        train = ["train", "tiny/base8", "--pairs", place, "--workdir", str(run)]
        train += ["--data.dataset", "emoji"]  # it is what the pairs are of that counts
        end([one.run([*train, "--train.steps", "2", "--train.log-every", "1"])])
        assert from_json((run / "config.json").read_text()).data.dataset == "shapes/tiny"
        lines = (run / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert losses[0] == losses[1] != []
