"""Batches that were kept may be anybody's: read as they were written, or refused by name."""

import os
import pickle
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imagen_jax.sample import kept_batches
from imagen_jax.sample.progress import SamplingCallbacks

IMAGES = np.random.default_rng(0).normal(size=(3, 4, 4, 3)).astype(np.float32)
PIXELS = np.zeros((3, 4, 4, 3), np.uint8)


def test_what_is_kept_is_read(tmp_path: Path) -> None:
    callbacks = SamplingCallbacks(None, tmp_path)
    callbacks.finish_batch("base", 0, IMAGES)
    np.testing.assert_array_equal(callbacks.load_batch("base", 0, shape=(3, 4, 4, 3)), IMAGES)
    with pytest.raises(ValueError, match="npy holds the images of another request: delete it"):
        callbacks.load_batch("base", 0, shape=(2, 4, 4, 3))
    callbacks.finish_images(0, {"base": PIXELS, "sr": PIXELS})
    found = callbacks.load_images(0, stages=["base", "sr"], count=3)
    assert found is not None
    assert list(found) == ["base", "sr"]
    np.testing.assert_array_equal(found["sr"], PIXELS)
    for stages, count in ((["base"], 3), (["sr", "base"], 3), (["base", "sr"], 2)):
        with pytest.raises(ValueError, match="npz holds the images of another request: delete it"):
            callbacks.load_images(0, stages=stages, count=count)


def claims(shape: str, dtype: str = "<f4") -> bytes:
    """An array's header with nothing behind it."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def bomb(file: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("base.npy", claims(f"(1, {1 << 14}, {1 << 14}, 3)") + bytes(3 << 28))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "huge": (lambda f: f.write_bytes(claims("(10**9,)")), "its header is"),
    "terabytes": (lambda f: f.write_bytes(claims("(1, 1000000, 1000000, 3)")), "it states 12,000"),
    "negative": (lambda f: f.write_bytes(claims("(1, -4, -4, 3)")), "its header is"),
    "object": (lambda f: f.write_bytes(claims("(1, 4, 4, 3)", "|O")), "its header is"),
    "pickle": (lambda f: f.write_bytes(pickle.dumps(IMAGES)), "holds no images"),
    "cut": (lambda f: (np.save(f, IMAGES), os.truncate(f, 300)), "it states 576 bytes"),
    "longer": (lambda f: np.savez(f, base=np.zeros((2, 2))), "holds no images"),
    "not finite": (lambda f: np.save(f, IMAGES * np.nan), "some are not finite"),
    "no end": (lambda f: f.write_bytes(claims("(((")), "its header is"),
    "digits": (lambda f: f.write_bytes(claims("(1, 4, 4, 3)", "<04")), "its header is"),
    "empty": (lambda f: f.write_bytes(b""), "holds no images"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_batch_of_anything_else_is_refused_by_name(tmp_path: Path, fault: str) -> None:
    make, says = FAULTS[fault]
    make(file := tmp_path / "base_0000000.npy")
    if not file.exists():
        os.rename(f"{file}.npz", file)
    with pytest.raises(ValueError, match=f"{file} holds no images.*{says}|{says}") as refused:
        kept_batches.read_batch(file)
    assert "delete it, and its images are sampled again" in str(refused.value)


def test_an_archive_that_unpacks_is_refused_at_once(tmp_path: Path) -> None:
    bomb(tmp_path / "0000000.npz")
    began = time.process_time()
    with pytest.raises(ValueError, match=r"a member is compressed.: delete it"):
        kept_batches.read_batches(tmp_path / "0000000.npz")
    assert time.process_time() - began < 1
    np.savez(tmp_path / "2.npz", base=PIXELS)
    data = bytearray((tmp_path / "2.npz").read_bytes())
    directory = data.rindex(b"PK\1\2")  # whose place of the member leads before the file
    data[directory + 42 : directory + 46] = b"\xff\xff\xff\xff"
    (tmp_path / "2.npz").write_bytes(data)
    with pytest.raises(ValueError, match=r"2.npz holds no images that were kept"):
        kept_batches.read_batches(tmp_path / "2.npz")
    (tmp_path / "1.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"1.npz holds no images that were kept"):
        kept_batches.read_batches(tmp_path / "1.npz")
