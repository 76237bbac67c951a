"""Orbax's layout, T5X's own and what Orbax writes today; and buckets, through a server here."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import traverse_util

from imagen_jax.text import encoder_folders
from imagen_jax.text.checkpoints import load
from imagen_jax.text.encoder import TextEncoder

FIXTURES = Path(__file__).parent / "fixtures"
ORBAX = FIXTURES / "t5_1_1_tiny_orbax"
EMBEDDED = encoder_folders.EMBEDDED["t5_1_1_tiny"]
EMBEDDING = "checkpoint_1000/target.token_embedder.embedding"

PORTRAIT = """
import json, sys
import numpy as np
from imagen_jax.text.checkpoints import load, remote_folders
remote_folders.RETRIES["max_retries"] = remote_folders.TRIES = 2
for path in sys.argv[1:]:
    try:
        config, params = load.load_parameters(path)
    except (ValueError, OSError) as error:
        print(json.dumps(str(error)))
        continue
    table = params["token_embedder"]["embedding"]
    last = params["encoder"]["layers_1"]["mlp"]["wo"]["kernel"]
    print(json.dumps([config.layers, float(table.sum()), float(np.abs(last).sum())]))
"""


def _assert_same(ours, theirs) -> None:
    ours, theirs = (traverse_util.flatten_dict(x, sep=".") for x in (ours, theirs))
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


def _save(folder: Path, target, **options) -> Path:
    handler = ocp.PyTreeCheckpointHandler(**options)
    tree = {"target": target, "state": {"step": np.int32(3)}}
    with ocp.Checkpointer(handler) as saver:
        saver.save(folder / "state", args=ocp.args.PyTreeSave(tree))
    return folder


def test_t5x_wrote_the_same_weights_with_orbax(tiny) -> None:
    config, params = load.load_parameters(ORBAX)
    assert config == tiny[0]
    _assert_same(params, tiny[1])


@pytest.mark.parametrize("options", [{"use_ocdbt": False}, {}, {"use_zarr3": True}])
def test_what_orbax_writes_today(tmp_path: Path, tiny, options: dict) -> None:
    config, params = tiny
    rounded = jax.tree.map(lambda x: np.asarray(x, ml_dtypes.bfloat16), params)
    decoder = {"decoder_norm": {"scale": np.ones(4, np.float32)}}
    folder = _save(tmp_path / "checkpoint_3", {**rounded, "decoder": decoder}, **options)
    for path in (folder, folder / "state", tmp_path):
        found, loaded = load.load_parameters(path)
        assert found == config
        _assert_same(loaded, jax.tree.map(lambda x: np.asarray(x, np.float32), rounded))


def test_a_damaged_database_is_named(tmp_path: Path, tiny) -> None:
    folder = _save(tmp_path / "checkpoint_3", tiny[1])
    largest = max(folder.rglob("d/*"), key=lambda file: file.stat().st_size)
    content = largest.read_bytes()
    largest.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"cannot be read from .*/checkpoint_3/state: a chunk"):
        load.load_parameters(folder)
    largest.unlink()
    with pytest.raises(ValueError, match=r"cannot be read"):
        load.load_parameters(folder)


def test_a_tree_without_parameters_is_refused(tmp_path: Path) -> None:
    with ocp.PyTreeCheckpointer() as saver:
        saver.save(tmp_path / "checkpoint_3" / "state", {"step": np.int32(3)})
    with pytest.raises(ValueError, match=r"state has no parameters target\.\*"):
        load.load_parameters(tmp_path)


class _Bucket(http.server.BaseHTTPRequestHandler):
    """Cloud Storage as far as reading and listing need it, over a folder."""

    protocol_version = "HTTP/1.1"
    folder: Path

    disable_nagle_algorithm = True  # or each answer waits 40 ms for the other side

    def log_message(self, *_) -> None: ...

    def do_GET(self) -> None:
        address = urllib.parse.urlparse(self.path)
        asked = {k: v[0] for k, v in urllib.parse.parse_qs(address.query).items()}
        _, is_object, name = address.path.partition("/o/")
        file = self.folder / urllib.parse.unquote(name)
        if not is_object:
            return self._answer(200, self._listing(asked))
        if not file.is_file():
            return self._answer(404, b"{}")
        content, wanted = file.read_bytes(), self.headers.get("Range")
        if wanted is None:
            return self._answer(200, content)
        first, last = (int(x) if x else len(content) - 1 for x in wanted[6:].split("-"))
        if not (part := content[first : last + 1]):
            return self._answer(416, b"")
        span = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
        return self._answer(206, part, {"Content-Range": span})

    def _listing(self, asked: dict[str, str]) -> bytes:
        files = (f for f in self.folder.rglob("*") if f.is_file())
        names = sorted(str(f.relative_to(self.folder)) for f in files)
        low, high = asked.get("startOffset", ""), asked.get("endOffset", "\uffff")
        return json.dumps({"items": [{"name": n} for n in names if low <= n < high]}).encode()

    def _answer(self, code: int, body: bytes, more: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"x-goog-generation": "1", **(more or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory) -> Iterator[dict[str, str]]:
    """Environment in which `gs://bucket` has T5X's checkpoints, and one that lacks a chunk."""
    folder = tmp_path_factory.mktemp("bucket")
    for name, source in (("classic", EMBEDDED), ("orbax", ORBAX), ("cut", EMBEDDED)):
        shutil.copytree(source, folder / name)
    (folder / "cut" / EMBEDDING / "0.0").unlink()
    handler = type("Handler", (_Bucket,), {"folder": folder})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield {
            **os.environ,
            "TENSORSTORE_GCS_HTTP_URL": f"http://127.0.0.1:{server.server_port}",
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
        }
        server.shutdown()
        thread.join()


def _load_there(environment: dict[str, str], *paths: str) -> subprocess.CompletedProcess:
    """In a process of its own: TensorStore reads the environment once."""
    command = [sys.executable, "-c", PORTRAIT, *paths]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


WHOLE = ("gs://bucket/classic", "gs://bucket/classic/checkpoint_1000/", "gs://bucket/orbax")
LACKING = {
    "gs://bucket/cut": "token_embedder.embedding cannot be read from gs://bucket/cut/",
    "gs://bucket/nothing": "no T5X checkpoint at gs://bucket/nothing",
}


@pytest.fixture(scope="module")
def portraits(bucket: dict[str, str]) -> dict[str, Any]:
    """What each place holds, or why it is refused, from one process."""
    done = _load_there(bucket, *WHOLE, *LACKING)
    assert done.returncode == 0, done.stderr
    return dict(zip((*WHOLE, *LACKING), map(json.loads, done.stdout.splitlines()), strict=True))


def test_buckets_are_read(portraits: dict[str, Any], tiny) -> None:
    _, params = tiny
    last = params["encoder"]["layers_1"]["mlp"]["wo"]["kernel"]
    expected = [2, float(params["token_embedder"]["embedding"].sum()), float(np.abs(last).sum())]
    assert [portraits[path] for path in WHOLE] == [expected] * len(WHOLE)


def test_a_whole_encoder_comes_from_a_bucket(bucket: dict[str, str]) -> None:
    """Its tokenizer lies in its folder, or is named; the last place has none."""
    program = (
        "import sys; from imagen_jax.text.encoder import TextEncoder as T\n"
        "for place, model in (x.split(',') for x in sys.argv[1:]):\n"
        "    print(T.load(place, max_length=24, tokenizer=model).identity)"
    )
    places = ["gs://bucket/classic,", "gs://bucket/orbax,gs://bucket/classic/spiece.model"]
    command = [sys.executable, "-c", program, *places, "gs://bucket/orbax,"]
    done = subprocess.run(command, env=bucket, capture_output=True, text=True)
    expected = TextEncoder.load("t5_1_1_tiny", max_length=24).identity
    assert done.stdout.split() == [expected, expected], done.stderr
    assert done.returncode != 0
    assert "no SentencePiece *.model file in gs://bucket/orbax" in done.stderr
    assert "text.tokenizer" in done.stderr


def test_a_bucket_is_converted(bucket: dict[str, str], tmp_path: Path, tiny) -> None:
    command = [sys.executable, "-c", "from imagen_jax.cli import main; main()", "convert", "text"]
    asked = ["--out", str(tmp_path / "e"), "--tokenizer", str(EMBEDDED / "spiece.model")]
    done = subprocess.run([*command, "gs://bucket/orbax", *asked], env=bucket, capture_output=True)
    assert done.returncode == 0, done.stderr
    _assert_same(load.load_parameters(tmp_path / "e")[1], tiny[1])


@pytest.mark.parametrize("path", LACKING)
def test_what_a_bucket_lacks_is_named(portraits: dict[str, Any], path: str) -> None:
    assert LACKING[path] in portraits[path]


def test_a_bucket_out_of_reach_is_named(bucket: dict[str, str]) -> None:
    nowhere = {**bucket, "TENSORSTORE_GCS_HTTP_URL": "http://127.0.0.1:9"}
    done = _load_there(nowhere, "gs://bucket/classic")
    assert "gs://bucket/classic cannot be read: is it there" in json.loads(done.stdout)
    said = done.stderr.splitlines()
    (line,) = (line for line in said if line.startswith("gs://bucket/classic did not answer (CURL"))
    assert line.endswith(": asking again, 2 of 2")
