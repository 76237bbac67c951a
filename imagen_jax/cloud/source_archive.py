"""The committed code of a repository, as one file that is the same for the same commit."""

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

LISTED = 5  # uncommitted files that a refusal names


@dataclass(frozen=True)
class SourceArchive:
    """A commit's files."""

    archive: bytes
    commit: str

    @property
    def name(self) -> str:
        """The file's name; its SHA-256 is in it, and the workers compare."""
        return f"code-{hashlib.sha256(self.archive).hexdigest()}.tar"


def archive_head(folder: Path, *, ignore_changes: bool = False) -> SourceArchive:
    """Archive HEAD of the repository around `folder`, and nothing else.

    Errors: ValueError outside a repository of this package, and for changes that are not committed.
    """
    try:
        root = Path(_git(folder, "rev-parse", "--show-toplevel").decode().strip())
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        raise ValueError(
            f"{folder} is in no git repository, and the committed code is what is shipped: go to "
            "a clone of imagen_jax, or give --image"
        ) from error
    commit = _git(root, "rev-parse", "HEAD").decode().strip()
    files = _git(root, "ls-tree", "-r", "--name-only", "HEAD").decode().splitlines()
    if "launch/requirements.lock" not in files:
        raise ValueError(
            f"{root}: commit {commit[:12]} has no launch/requirements.lock; go to a clone of "
            "imagen_jax, or give --image"
        )
    changed = _git(root, "status", "--porcelain").decode().splitlines()
    if changed and not ignore_changes:
        some = ", ".join(line[3:] for line in changed[:LISTED])
        raise ValueError(
            f"{len(changed)} file(s) are not as committed ({some}): commit them, or give "
            "--ignore-changes to ship the last commit without them"
        )
    # Not compressed: most of it is, and the same command makes the same bytes by hand.
    return SourceArchive(_git(root, "archive", "--format=tar", commit), commit)


def _git(folder: Path, *arguments: str) -> bytes:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=True)
    return done.stdout
