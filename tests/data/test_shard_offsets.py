"""Records' places in a file: where ArrayRecord's own reader finds them, or damage, said so."""

import contextlib
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from hypothesis import strategies

from imagen_jax.data.store import shard_offsets
from imagen_jax.data.store.shard_file import CORRUPTED, READER_OPTIONS, WRITER_OPTIONS
from imagen_jax.data.store.shard_offsets import BLOCK, BLOCK_HEADER, CHUNK_HEADER
from imagen_jax.io.errors import CorruptDataError

# A record of so many bytes after the first 64 of a file ends about where the first block does.
TO_BLOCK = BLOCK - 64 - CHUNK_HEADER - 5


def write(path: Path, sizes: list[int]) -> bytes:
    writer = ArrayRecordWriter(str(path), WRITER_OPTIONS)
    rng = np.random.default_rng(sum(sizes))
    for size in sizes:
        writer.write(rng.bytes(size))
    writer.close()
    return path.read_bytes()


def offsets_of(content: bytes, count: int) -> np.ndarray:
    footer = shard_offsets.find_footer(content[-BLOCK:], size=len(content))
    return shard_offsets.read_offsets(content[footer:], start=footer, count=count)


def assert_each_alone_can_be_read(content: bytes, folder: Path, count: int) -> None:
    """Read each record from a copy with nothing but it and the footer."""
    offsets = offsets_of(content, count)
    whole = ArrayRecordReader(str(folder / "whole"), READER_OPTIONS)
    for index in range(count):
        start, stop = offsets[index : index + 2]
        alone = bytearray(len(content))
        alone[offsets[-1] :] = content[offsets[-1] :]
        alone[start:stop] = content[start:stop]
        (folder / "alone").write_bytes(alone)
        reader = ArrayRecordReader(str(folder / "alone"), READER_OPTIONS)
        assert reader.read([index]) == whole.read([index])
        for other in (index - 1, index + 1):
            if 0 <= other < count:  # what is not there is no record
                with pytest.raises(RuntimeError, match=rf"^({'|'.join(CORRUPTED)})"):
                    reader.read([other])
        with contextlib.suppress(RuntimeError):  # what it said before
            reader.close()
    whole.close()


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
    strategies.lists(
        strategies.one_of(
            strategies.integers(1, 300),
            strategies.integers(TO_BLOCK - 70, TO_BLOCK + 70),
            strategies.integers(2 * TO_BLOCK - 70, 2 * TO_BLOCK + 200),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_each_record_alone_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("files")
    assert_each_alone_can_be_read(write(folder / "whole", sizes), folder, len(sizes))


@pytest.mark.parametrize("first", range(TO_BLOCK - BLOCK_HEADER - 48, TO_BLOCK + 12, 3))
def test_records_and_footers_round_the_end_of_a_block(tmp_path: Path, first: int) -> None:
    content = write(tmp_path / "whole", [first])
    assert_each_alone_can_be_read(content, tmp_path, 1)
    content = write(tmp_path / "whole", [first, 10])
    assert_each_alone_can_be_read(content, tmp_path, 2)


def test_a_footer_of_several_blocks(tmp_path: Path) -> None:
    content = write(tmp_path / "whole", [10 + n % 200 for n in range(8192)])
    offsets = offsets_of(content, 8192)
    assert len(content) - offsets[-1] > 2 * BLOCK
    assert offsets[0] == 64
    assert (np.diff(offsets) > 10).all()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("sound") / "whole", [500] * 200)


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(data=strategies.data())
def test_damage_is_told_or_changes_nothing(sound: bytes, data: strategies.DataObject) -> None:
    footer = offsets_of(sound, 200)[-1]
    postscript = len(sound) - BLOCK
    place = data.draw(
        strategies.one_of(
            strategies.integers(footer, footer + 600),
            strategies.integers(postscript, postscript + 120),
            strategies.integers(footer, len(sound) - 1),
        )
    )
    damaged = bytearray(sound)
    damaged[place : place + 4] = data.draw(strategies.binary(min_size=1, max_size=4))
    with contextlib.suppress(CorruptDataError):
        found = offsets_of(bytes(damaged), 200)
        assert found.shape == (201,)  # ArrayRecord's reader checks the hashes of what is left


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(cut=strategies.integers(0, 3 * BLOCK), count=strategies.integers(0, 400))
def test_cut_files_and_wrong_counts_are_damaged(sound: bytes, cut: int, count: int) -> None:
    hypothesis.assume(cut or count != 200)
    with pytest.raises(CorruptDataError, match=r"^its (footer|postscript) "):
        offsets_of(sound[: max(len(sound) - cut, 0)], count)


@pytest.mark.parametrize("block", [b"", b"\0" * BLOCK, b"\xff" * BLOCK, b"\0" * 24 + b"r" * 100])
def test_what_is_no_file_of_records_is_damaged(block: bytes) -> None:
    with pytest.raises(CorruptDataError, match=r"^its (footer|postscript) "):
        shard_offsets.find_footer(block, size=3 * BLOCK)
