"""A checkpoint's folder, here or in a bucket (`gs://`), through TensorStore's drivers."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorstore

from imagen_jax import limits
from imagen_jax.io import (
    buckets,
    checkpoint_files,
    further_tries,
    key_lists,
    paths,
    whole_files,
)
from imagen_jax.limits import Limit

# Half a minute until a bucket that does not answer is given up; TensorStore's own takes many.
RETRIES = {"max_retries": 6, "initial_delay": "500ms", "max_delay": "8s"}
TRIES = 6  # where we ask, and say it each time; the waits between them are half a minute
PASSING = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED")


@dataclass(frozen=True)
class RemoteFolder:
    """A place that holds files and further folders."""

    url: str  # without a slash at its end; gs://bucket/path, or absolute on this machine

    @classmethod
    def from_path(cls, path: Path | str) -> "RemoteFolder":
        """Make the folder of a local path or of a `gs://` address."""
        text = str(path)
        if buckets.is_bucket(text):
            return cls(text.rstrip("/"))
        return cls(str(paths.require_text(paths.local_path(text).absolute())))

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "RemoteFolder":
        return RemoteFolder(f"{self.url}/{name}")

    @property
    def is_remote(self) -> bool:
        return buckets.is_bucket(self.url)

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> "RemoteFolder":
        return RemoteFolder(self.url.rpartition("/")[0] or "/")

    def kvstore(self) -> dict[str, Any]:
        """TensorStore's specification of it."""
        if self.is_remote:
            bucket, path = buckets.split_address(self.url)
            return {
                "driver": "gcs",
                "bucket": bucket,
                "path": f"{path}/" if path else "",
                "gcs_request_retries": RETRIES,
            }
        return {"driver": "file", "path": f"{self.url}/"}

    def exists(self) -> bool:
        """Return whether it is a folder; in a bucket, whether anything lies under it."""
        return bool(self.names()) if self.is_remote else Path(self.url).is_dir()

    def check_files(self) -> None:
        """Refuse pipes and devices here, for which TensorStore would wait. Errors: ValueError."""
        if not self.is_remote and self.exists():
            checkpoint_files.check_checkpoint(Path(self.url))

    def names(self) -> set[str]:
        """List the files and folders in it; in a bucket from a listing of all that is below."""
        if not self.is_remote:
            here = Path(self.url)
            return {path.name for path in here.iterdir()} if here.is_dir() else set()
        return {key.split("/")[0] for key in list_keys(self.kvstore(), where=self)}

    def read(self, name: str, limit: Limit = limits.FILE_BYTES) -> bytes | None:
        """A file's content; None where there is no such file.

        Errors: ValueError for one that can't be read, or has more bytes than `limit` allows.
        """
        if not self.is_remote:
            file = Path(self.url) / name
            return whole_files.read_whole(file, limit) if file.is_file() else None
        found = _ask(
            self.kvstore(), lambda there: key_lists.read_key(there, name, limit), where=self / name
        )
        return found.value if found.state == "value" else None


def list_keys(kvstore: dict[str, Any], *, where: Any) -> list[str]:
    """All keys of a TensorStore key-value store. Errors: ValueError where it can't be read."""
    keys = _ask(kvstore, key_lists.list_keys, where=where)
    return [key.decode(errors="replace") for key in keys]  # those of no text are of no array


def _ask(kvstore: dict[str, Any], do: Callable[[Any], Any], *, where: Any) -> Any:
    """Return what `do` gets of a store, which is asked again where it did not answer.

    Errors: ValueError where it can't be read.
    """
    if kvstore["driver"] == "gcs":
        kvstore = {**kvstore, "gcs_request_retries": {"max_retries": 1}}
    with _named_errors(where):
        for number in range(1, TRIES):
            try:
                return do(tensorstore.KvStore.open(kvstore).result())
            except (ValueError, OSError) as error:
                said = " ".join(str(error).split())
                if not said.startswith(PASSING):
                    raise
            further_tries.say(
                str(where), said.rpartition("attempts failed: ")[2], number + 1, TRIES
            )
            time.sleep(2 ** (number - 1))
        return do(tensorstore.KvStore.open(kvstore).result())


@contextmanager
def _named_errors(where: Any) -> Iterator[None]:
    """TensorStore's errors as a sentence that names the place."""
    try:
        yield
    except (ValueError, KeyError, OSError) as error:
        raise ValueError(
            f"{where} cannot be read: is it there, and have you the rights? ({error})"
        ) from error
