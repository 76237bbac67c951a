"""`imagen serve` under load, and what it costs beside sampling offline.

A server in a process of its own; clients that ask at once, each image compared with its own sampled
alone; many requests for memory; clients that leave at random moments. On two idle cores a few
minutes: `python benchmarks/serving.py`.
"""

import argparse
import asyncio
import base64
import io
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
from PIL import Image

import imagen_jax

PROMPTS = [
    f"a {size} {colour} {shape} on a {ground} background"
    for size in ("small", "large")
    for colour in ("red", "green", "orange")
    for shape in ("circle", "star", "ring")
    for ground in ("white", "black")
]
PATH, PATIENCE = "/v1/images/generations", 3600
Alone = dict[int, np.ndarray]  # images by their seeds
Rows = list[tuple[str, str]]  # of a table


def resident(pid: int) -> float:
    """Resident memory of a process, MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found[1]) / 1024 if found else 0.0


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process so far, of all its threads."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, after_name[11:13])) / os.sysconf("SC_CLK_TCK")


def figure(address: str, name: str) -> float:
    """One of the server's figures."""
    text = httpx.get(f"{address}/metrics").text
    found = re.search(rf"^{re.escape(name)} ([0-9.e+-]+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


class Rate(NamedTuple):
    """What images took, each."""

    seconds: float
    cpu: float  # seconds


class Server(NamedTuple):
    """A server that is ready."""

    process: subprocess.Popen
    address: str
    ready: float  # seconds until then

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid


def start(cascade: str, port: int, batch_size: int) -> Server:
    """Start a server, and wait until it is ready."""
    began, address = time.monotonic(), f"http://127.0.0.1:{port}"
    options = [
        "--port",
        str(port),
        "--batch-size",
        str(batch_size),
        "--max-queue",
        "2000",
        "--warm",
    ]
    server = subprocess.Popen(
        [sys.executable, "-m", "imagen_jax", "serve", cascade, *options], stderr=subprocess.DEVNULL
    )
    while server.poll() is None:
        try:
            if httpx.get(f"{address}/ready").status_code == 200:
                return Server(server, address, time.monotonic() - began)
        except httpx.HTTPError:
            time.sleep(0.1)
    raise SystemExit("the server ended")


async def load(address: str, requests: int, clients: int) -> tuple[dict[int, bytes], list[float]]:
    """The image of each seed, and the seconds that each took; so many clients ask at once."""
    images: dict[int, bytes] = {}
    took: list[float] = []
    left = iter(range(requests))

    async def client(session: httpx.AsyncClient) -> None:
        for seed in left:
            began = time.monotonic()
            body = {"prompt": PROMPTS[seed % len(PROMPTS)], "seed": seed}
            answer = await session.post(PATH, json=body)
            answer.raise_for_status()
            images[seed] = base64.b64decode(answer.json()["data"][0]["b64_json"])
            took.append(time.monotonic() - began)

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=address, timeout=PATIENCE, limits=limits) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))
    return images, took


async def leave(address: str, clients: int) -> None:
    """Clients that ask and leave at random moments."""
    draw, (host, port) = random.Random(0), address.removeprefix("http://").split(":")

    async def one() -> None:
        _, writer = await asyncio.open_connection(host, int(port))
        body = json.dumps({"prompt": PROMPTS[0], "n": 4, "stream": draw.random() < 0.5})
        head = f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        await asyncio.sleep(draw.random() * 2)
        writer.transport.abort()

    for _ in range(clients // 50):
        await asyncio.gather(*(one() for _ in range(50)))


def offline(cascade: str, requests: int, batch_size: int) -> tuple[Rate, float, Alone]:
    """The time of images of `imagen.sample`, of one alone, and the images of some seeds alone."""
    imagen = imagen_jax.load(cascade)
    imagen(PROMPTS[:batch_size], batch_size=batch_size, progress=False)
    began, used = time.monotonic(), time.process_time()
    prompts = (PROMPTS * requests)[:requests]
    imagen(prompts, batch_size=batch_size, progress=False)
    seconds, cpu = time.monotonic() - began, time.process_time() - used
    rate = Rate(seconds / requests, cpu / requests)
    alone = {
        seed: np.asarray(imagen(PROMPTS[seed % len(PROMPTS)], seed=seed, progress=False)[0])
        for seed in range(min(requests, 64))
    }
    began = time.monotonic()
    imagen(PROMPTS[0], progress=False)
    first = time.monotonic() - began
    return rate, first, alone


def first_image(address: str) -> float:
    """Seconds of the first image that a server is asked for."""
    began = time.monotonic()
    httpx.post(f"{address}{PATH}", json={"prompt": PROMPTS[0]}, timeout=PATIENCE).raise_for_status()
    return time.monotonic() - began


def under_load(server: Server, given: argparse.Namespace, alone: Alone, rate: Rate) -> Rows:
    """What clients get that ask at once, and what it costs."""
    began, used = time.monotonic(), cpu_seconds(server.pid)
    images, took = asyncio.run(load(server.address, given.requests, given.clients))
    served = Rate(
        (time.monotonic() - began) / given.requests,
        (cpu_seconds(server.pid) - used) / given.requests,
    )
    differing = [
        seed
        for seed, wanted in alone.items()
        if (np.asarray(Image.open(io.BytesIO(images[seed]))) != wanted).any()
    ]
    p50, p95 = np.percentile(took, [50, 95])
    return [
        ("offline, images a second", f"{1 / rate.seconds:.2f}"),
        (
            f"served to {given.clients} clients",
            f"{1 / served.seconds:.2f} ({rate.seconds / served.seconds:.0%})",
        ),
        (
            "CPU seconds an image, offline and served",
            f"{rate.cpu:.3f}, {served.cpu:.3f} ({rate.cpu / served.cpu:.0%})",
        ),
        ("answered, of requests", f"{len(images)} of {given.requests}"),
        ("other bytes than alone, offline", f"{len(differing)} of {len(alone)}"),
        ("latency, median and 95th percentile", f"{p50:.1f} s, {p95:.1f} s"),
    ]


def in_the_long_run(server: Server, given: argparse.Namespace) -> Rows:
    """Memory after many requests, and after clients that leave."""
    before = resident(server.pid)
    asyncio.run(load(server.address, given.memory_requests, given.clients))
    after = resident(server.pid)
    asyncio.run(leave(server.address, given.leaving))
    began = time.monotonic()
    while figure(server.address, "imagen_active_requests") and time.monotonic() < began + PATIENCE:
        time.sleep(0.05)
    idle, last = time.monotonic() - began, resident(server.pid)
    return [
        (f"memory before and after {given.memory_requests}", f"{before:.0f}, {after:.0f} MiB"),
        (f"after {given.leaving} clients that left", f"{last:.0f} MiB, idle in {idle:.1f} s"),
    ]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cascade", default="shapes")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=512)
    parser.add_argument("--memory-requests", type=int, default=2000)
    parser.add_argument("--leaving", type=int, default=1000)
    given = parser.parse_args()

    rate, first, alone = offline(given.cascade, given.requests, given.batch_size)
    server = start(given.cascade, given.port, given.batch_size)
    try:
        rows = [
            ("ready, programs cached or compiled", f"{server.ready:.1f} s"),
            ("CPU seconds until then", f"{cpu_seconds(server.pid):.1f} s"),
            (
                "one image, offline and the first one served",
                f"{first:.2f} s, {first_image(server.address):.2f} s",
            ),
            *under_load(server, given, alone, rate),
            *in_the_long_run(server, given),
        ]
        print("| | |\n|---|---|")
        for name, value in rows:
            print(f"| {name} | {value} |")
    finally:
        server.process.terminate()
        server.process.wait()
    print(f"exit code at SIGTERM: {server.process.returncode}")


if __name__ == "__main__":
    main()
