"""What a set of images is compared by, in memory and in a file, and what it was made with.

A file is safetensors: mean and covariance of Inception's features in float64, features that CMMD
and precision and recall need, and a JSON text. Of pytorch-fid's and others' .npz `mu` and `sigma`
are read, without unpickling anything; nothing is known then of images and preprocessing.
"""

import hashlib
import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import numpy as tensors

from imagen_jax import limits
from imagen_jax.config.sentences import abridge, shorten
from imagen_jax.io import json_reader, safetensors, whole_files, zip_members
from imagen_jax.io.atomic import write_atomic
from imagen_jax.io.file_digest import sha256
from imagen_jax.metrics.frechet import Gaussian, Moments
from imagen_jax.metrics.networks import CLIP, CMMD, INCEPTION
from imagen_jax.metrics.parts import ABOUT, Part

FILE = "statistics.safetensors"
MEAN, COVARIANCE = f"{INCEPTION}.mean", f"{INCEPTION}.covariance"
# Of NumPy's format 1.0: one or two sides, of any of the sizes of real numbers.
HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(<f[248])', 'fortran_order': (True|False), "
    rb"'shape': \(([0-9]{1,7}, ?(?:[0-9]{1,7})?)\), \} *\n",
    re.DOTALL,
)
BROKEN = (  # what Python's reader raises for bytes that are no archive, and ours for no array
    *(KeyError, ValueError, OSError, EOFError, OverflowError, NotImplementedError, RuntimeError),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)
KINDS = {"networks": dict, "count": int, "side": int, "left_out": str}  # of a description
FLOATS = ("F16", "F32", "F64")
LARGEST = 1e9  # of features, their means and covariances; those of images have a millionth
REMEDY = "make it again with `imagen score IMAGES --out FOLDER`"


@dataclass(frozen=True)
class Statistics:
    """A set of images as metrics see it; None is what was not computed."""

    about: Mapping[str, Any]  # JSON: images, preprocessing, networks; {} where nothing is known
    gaussian: Gaussian | None = None
    inception: np.ndarray | None = None  # (n, 2048) float32
    cmmd: np.ndarray | None = None  # (n, 768) float32
    cosines: np.ndarray | None = None  # (n,) of images and prompts

    def save(self, file: Path) -> None:
        """Write all but the cosines."""
        named = {f"{INCEPTION}.features": self.inception, f"{CMMD}.features": self.cmmd}
        if self.gaussian is not None:
            named |= {MEAN: self.gaussian.mean, COVARIANCE: self.gaussian.covariance}
        found = {name: np.ascontiguousarray(x) for name, x in named.items() if x is not None}
        write_atomic(file, tensors.save(found, metadata={ABOUT: json.dumps(self.about)}))


def gather(parts: Iterable[Part], about: Mapping[str, Any], *, keep_inception: bool) -> Statistics:
    """The statistics of a set; Inception's features are kept for precision and recall alone.

    Errors: ValueError for one image, of which there is no covariance.
    """
    moments: Moments | None = None
    kept: dict[str, list[np.ndarray]] = {}
    digests, side = [], 0
    for part in parts:
        digests.append(part.sha256)
        side = part.side
        for name, rows in part.rows.items():
            if name == INCEPTION:
                moments = (moments or Moments.empty(rows.shape[1])).add(rows)
            if name != INCEPTION or keep_inception:
                kept.setdefault(name, []).append(rows)
    whole = {name: np.concatenate(rows) for name, rows in kept.items()}
    digest = hashlib.sha256("".join(digests).encode()).hexdigest()
    return Statistics(
        about={**about, "side": side, "sha256": digest},
        gaussian=moments.gaussian() if moments else None,
        inception=whole.get(INCEPTION),
        cmmd=whole.get(CMMD),
        cosines=whole.get(CLIP),
    )


def find_file(reference: str) -> Path | None:
    """Return the file of statistics that a reference is, or that is in it; None for images."""
    path = Path(os.path.expanduser(reference))  # pathlib's own raises for nobody's home
    if path.suffix in (".safetensors", ".npz"):
        return path
    return path / FILE if (path / FILE).is_file() else None


def read(file: Path) -> Statistics:
    """Read statistics of either form.

    Errors: FileNotFoundError; ValueError for a damaged file, other contents, or numbers that are
    not finite.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no file {file} of statistics: {REMEDY}")
    found, about = _read_npz(file) if file.suffix == ".npz" else _read_own(file)
    for name, array in found.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{file}: {shorten(name)} has values that are not finite: {REMEDY}")
        if array.size and max(-array.min(), array.max()) > LARGEST:
            raise ValueError(f"{file}: {shorten(name)} has values beyond {LARGEST:g}: {REMEDY}")
    gaussian = None
    if (mean := found.get(MEAN)) is not None and (spread := found.get(COVARIANCE)) is not None:
        if mean.ndim != 1 or spread.shape != mean.shape * 2:
            raise ValueError(
                f"{file}: a mean of {mean.shape} and a covariance of {spread.shape}: {REMEDY}"
            )
        gaussian = Gaussian(mean.astype(np.float64), spread.astype(np.float64))
    return Statistics(
        about={**about, "file": str(file), "file_sha256": sha256(file)},
        gaussian=gaussian,
        inception=found.get(f"{INCEPTION}.features"),
        cmmd=found.get(f"{CMMD}.features"),
    )


def _read_own(file: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    text = safetensors.read_metadata(file).get(ABOUT, "")
    about = json_reader.parse_object(text, where=f"{file}: its description", remedy=REMEDY)
    for key, kind in KINDS.items():
        if about.get(key) is not None and type(about[key]) is not kind:
            raise ValueError(f"{file}: its {key} is {shorten(about[key])}: {REMEDY}")
    for name, facts in (about.get("networks") or {}).items():
        if not isinstance(facts, dict):
            raise ValueError(f"{file}: its network {shorten(name)} is {shorten(facts)}: {REMEDY}")
    with safetensors.open_tensors(file) as opened:
        for name in opened.keys():  # noqa: SIM118
            if (dtype := opened.get_slice(name).get_dtype()) not in FLOATS:
                raise ValueError(f"{file}: {shorten(name)} holds {dtype}: {REMEDY}")
        found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    for name in (f"{INCEPTION}.features", f"{CMMD}.features"):
        if name in found and found[name].ndim != 2:
            raise ValueError(f"{file}: {name} has the shape {found[name].shape}: {REMEDY}")
    return found, about


def _read_npz(file: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        with whole_files.open_file(file) as opened, zipfile.ZipFile(opened) as archive:
            return {MEAN: _member(archive, "mu"), COVARIANCE: _member(archive, "sigma")}, {}
    except BROKEN as error:
        raise ValueError(
            f"{file} has no arrays mu and sigma ({abridge(str(error))}): {REMEDY}"
        ) from error


def _member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read an array as `numpy.savez` writes it.

    NumPy's own reader allocates what a header states, and parses any Python literal.
    Errors: ValueError; those of the archive.
    """
    about = archive.getinfo(f"{name}.npy")
    limits.FILE_BYTES.check(about.file_size, f"{about.filename} has")
    data = zip_members.read_member(archive, about)
    found = HEADER.match(data)
    if found is None:
        raise ValueError(f"the header of {about.filename} is {shorten(data[:200])}")
    dtype, is_transposed, shape = found[1].decode(), found[2] == b"True", found[3]
    sides = tuple(int(side) for side in shape.split(b",") if side.strip())
    numbers = np.frombuffer(data, dtype, offset=found.end())
    return numbers.reshape(sides, order="F" if is_transposed else "C")
