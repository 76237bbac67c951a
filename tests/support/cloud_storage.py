"""Google's Cloud Storage on this machine, in memory, for tests: the JSON API as clients use it.

Objects are read whole or in ranges, listed, written in one request or several, copied, moved and
deleted; preconditions on generations are kept. Faults are injected one by one, and latency into
every answer. Source: cloud.google.com/storage/docs/json_api.
"""

import base64
import contextlib
import functools
import gc
import hashlib
import http.server
import itertools
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

PAGE = 1000  # objects of a listing


@functools.lru_cache(maxsize=256)  # a listing of gigabytes has the digest of each object
def _digest(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content).digest()).decode()


@dataclass
class Fault:
    """What happens to the next requests of a method, with a part of a name in them."""

    method: str = "GET"
    name: str = ""  # a part of the address, or of how a body begins
    times: int = 1
    code: int | None = None  # the answer; without it the request is served
    retry_after: str = ""
    cut: float = 1.0  # the share of the answer that is sent before the connection ends
    short: bool = False  # an answer that is cut says that it is whole
    delay: float = 0.0  # seconds without a byte in the middle of the answer
    lost: bool = False  # the request is carried out all the same


@dataclass
class Bucket:
    """What the server holds, whatever bucket is named; tests may look and change it."""

    objects: dict[str, tuple[int, bytes]] = field(default_factory=dict)  # generation, content
    uploads: dict[str, tuple[str, dict[str, str], bytes]] = field(default_factory=dict)
    refuses: str | None = None  # what to write or delete is not allowed, by a part of its name
    faults: list[Fault] = field(default_factory=list)  # used up in their order
    injected: int = 0  # how often there was one
    latency: float = 0.0  # seconds before each answer
    requests: list[str] = field(default_factory=list)  # method and address of each
    lock: threading.RLock = field(default_factory=threading.RLock)
    count: Iterator[int] = field(default_factory=lambda: itertools.count(1_700_000_000_000_000))

    def names(self, prefix: str = "") -> list[str]:
        """Objects below a prefix."""
        with self.lock:
            return sorted(name for name in self.objects if name.startswith(prefix))

    def take_fault(self, method: str, text: str) -> Fault | None:
        """The next fault that is meant for a request."""
        with self.lock:
            self.requests.append(f"{method} {text}")
            for fault in self.faults:
                if fault.times and fault.method == method and fault.name in text:
                    fault.times -= 1
                    self.injected += 1
                    return fault
        return None

    def put(self, name: str, content: bytes) -> dict[str, Any]:
        """Write an object; its metadata."""
        with self.lock:
            self.objects[name] = next(self.count), content
            return self.about(name)

    def about(self, name: str) -> dict[str, Any]:
        """An object's metadata."""
        generation, content = self.objects[name]
        return {
            "kind": "storage#object",
            "name": name,
            "bucket": "bucket",
            "size": str(len(content)),
            "generation": str(generation),
            "md5Hash": _digest(content),
            "metageneration": "1",
            "contentType": "application/octet-stream",
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "updated": "2026-01-01T00:00:00.000Z",
        }


class Refused(Exception):
    """An answer that is an error: its code."""


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None: ...  # a client that was killed


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise a body waits 40 ms for the client
    bucket: Bucket
    address: str
    _fault: Fault | None = None

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        self._handle("GET")

    def do_POST(self) -> None:
        self._handle("POST")

    def do_PUT(self) -> None:
        self._handle("PUT")

    def do_DELETE(self) -> None:
        self._handle("DELETE")

    def _handle(self, method: str) -> None:
        url = urllib.parse.urlparse(self.path)
        query = {k: v[0] for k, v in urllib.parse.parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, is_object, rest = url.path.partition("/o/")
        parts = [urllib.parse.unquote(x) for x in re.split("/(?:rewriteTo|copyTo|moveTo)/", rest)]
        time.sleep(self.bucket.latency)
        text = urllib.parse.unquote(self.path + body[:1000].decode(errors="replace"))
        self._fault = fault = self.bucket.take_fault(method, text)
        try:
            if fault is not None and fault.code is not None and not fault.lost:
                raise Refused(fault.code)
            with self.bucket.lock:
                refuses = self.bucket.refuses
                if method != "GET" and refuses is not None and refuses in text:
                    raise Refused(403)
                if "/upload/" in path:
                    self._upload(query, body)
                elif not is_object:
                    self._answer(200, self._listing(query) if path.endswith("/o") else {})
                elif method == "GET":
                    self._read(parts[0], query)
                elif method == "DELETE":
                    self._check(parts[0], query)
                    self.bucket.objects.pop(parts[0])
                    self._answer(204, None)
                else:
                    self._copy(parts[0], parts[1].rpartition("o/")[2], moves="/moveTo/" in rest)
        except Refused as error:
            code = error.args[0]
            about = {"error": {"code": code, "message": "refused"}}
            self._answer(code, None if code == 304 else about)  # 304 has no body

    def _check(self, name: str, query: dict[str, str], *, creates: bool = False) -> None:
        """Preconditions, and that the object is there."""
        generation = str(self.bucket.objects[name][0]) if name in self.bucket.objects else "0"
        if query.get("ifGenerationMatch", generation) != generation:
            raise Refused(412)
        if query.get("ifGenerationNotMatch") == generation:
            raise Refused(304)
        if generation == "0" and not creates:
            raise Refused(404)

    def _read(self, name: str, query: dict[str, str]) -> None:
        self._check(name, query)
        if query.get("alt") != "media":
            return self._answer(200, self.bucket.about(name))
        generation, content = self.bucket.objects[name]
        headers, wanted = {"x-goog-generation": str(generation)}, self.headers.get("Range")
        if wanted is None:
            return self._answer(200, content, headers)
        low, high = wanted.removeprefix("bytes=").split("-")
        if not low:
            low, high = str(max(len(content) - int(high), 0)), ""
        first, last = int(low), int(high) if high else len(content) - 1
        part = content[first : last + 1]
        if not part:
            raise Refused(416)
        headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
        return self._answer(206, part, headers)

    def _listing(self, query: dict[str, str]) -> dict[str, Any]:
        prefix, slash = query.get("prefix", ""), query.get("delimiter")
        low, high = query.get("startOffset", ""), query.get("endOffset", "\U0010ffff")
        found: dict[str, bool] = {}  # name or common prefix: whether it is a prefix
        for name in self.bucket.names(prefix):
            if low <= name < high and name > query.get("pageToken", ""):
                head, cut, _ = name[len(prefix) :].partition(slash) if slash else (name, "", "")
                found[prefix + head + cut if cut else name] = bool(cut)
        page = list(found)[: int(query.get("maxResults", PAGE))]
        answer: dict[str, Any] = {"kind": "storage#objects"}
        answer["items"] = [self.bucket.about(name) for name in page if not found[name]]
        answer["prefixes"] = [name for name in page if found[name]]
        if len(page) < len(found):
            answer["nextPageToken"] = page[-1] + ("\U0010ffff" if found[page[-1]] else "")
        return answer

    def _upload(self, query: dict[str, str], body: bytes) -> None:
        kind, held = query.get("uploadType"), self.bucket
        if "upload_id" in query:
            return self._part(query["upload_id"], body)
        if kind == "media":
            name, content = query["name"], body
        elif kind == "multipart":
            mark = re.search('boundary="?([^";]+)', self.headers["Content-Type"])
            assert mark is not None
            _, about, data, _ = body.split(b"--" + mark[1].encode(), 3)
            name = json.loads(re.split(rb"\r?\n\r?\n", about, maxsplit=1)[1])["name"]
            content = re.sub(rb"\r?\n\Z", b"", re.split(rb"\r?\n\r?\n", data, maxsplit=1)[1])
        else:
            name = query.get("name") or json.loads(body)["name"]
            self._check(name, query, creates=True)
            number = str(next(held.count))
            held.uploads[number] = name, query, b""
            where = f"{self.address}/upload/storage/v1/b/bucket/o?upload_id={number}"
            return self._answer(200, {}, {"Location": where})
        self._check(name, query, creates=True)
        return self._answer(200, held.put(name, content))

    def _part(self, number: str, body: bytes) -> None:
        """A part of a resumable upload; the last one says the size."""
        name, query, so_far = self.bucket.uploads[number]
        so_far += body
        if self.headers.get("Content-Range", "").endswith("/*"):
            self.bucket.uploads[number] = name, query, so_far
            return self._answer(308, None, {"Range": f"bytes=0-{len(so_far) - 1}"})
        del self.bucket.uploads[number]
        self._check(name, query, creates=True)
        return self._answer(200, self.bucket.put(name, so_far))

    def _copy(self, name: str, other: str, *, moves: bool) -> None:
        self._check(name, {})
        resource = self.bucket.put(other, self.bucket.objects[name][1])
        if moves:
            del self.bucket.objects[name]
        self._answer(200, resource if moves else {"done": True, "resource": resource})

    def _answer(
        self, code: int, body: bytes | dict[str, Any] | None, headers: dict[str, str] | None = None
    ) -> None:
        fault, self._fault = self._fault or Fault(), None
        if fault.code is not None:
            code = fault.code
            body = {"error": {"code": code, "message": "refused"}}
        raw = json.dumps(body).encode() if isinstance(body, dict) else body or b""
        if fault.short:
            raw, fault.cut = raw[: int(len(raw) * fault.cut)], 1.0
        self.send_response(code)
        if fault.retry_after:
            self.send_header("Retry-After", fault.retry_after)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sent = int(len(raw) * fault.cut)
            self.wfile.write(raw[: sent // 2])
            self.wfile.flush()
            time.sleep(fault.delay)
            self.wfile.write(raw[sent // 2 : sent])
        self.close_connection = sent < len(raw)


@contextlib.contextmanager
def serve(host: str = "127.0.0.1") -> Iterator[tuple[Bucket, dict[str, str]]]:
    """A bucket, and the environment in which `gs://bucket` leads to it."""
    held = Bucket()
    handler = type("Handler", (_Handler,), {"bucket": held})
    with _Server((host, 0), handler) as server:
        address = handler.address = f"http://{host}:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield (
            held,
            {
                "TENSORSTORE_GCS_HTTP_URL": address,
                "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
                "STORAGE_EMULATOR_HOST": address,
                "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # asks Google itself what a bucket is
            },
        )
        server.shutdown()


def end_fillers() -> None:
    """Wait for the threads that fetch blocks ahead of need: a later test would have their requests.

    They end with the store that began them.
    """
    from imagen_jax.data.store import cache_filler

    fillers = [x for x in threading.enumerate() if x.name == cache_filler.NAME]
    if fillers:
        gc.collect()  # takes most of a second where much was traced
    for thread in fillers:
        thread.join(20)
        assert not thread.is_alive(), "a store that is still in use fetches blocks"


@contextlib.contextmanager
def serve_here(monkeypatch: pytest.MonkeyPatch, host: str = "127.0.0.1") -> Iterator[Bucket]:
    """`gs://bucket`, in memory, for this process."""
    from imagen_jax.io import bucket_driver

    bucket_driver.register()
    with serve(host) as (held, env):
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("NO_GCE_CHECK", "true")  # nobody signs in here
        bucket_driver.BucketDriver.clear_instance_cache()  # they keep the address they began with
        yield held
        end_fillers()
    bucket_driver.BucketDriver.clear_instance_cache()
