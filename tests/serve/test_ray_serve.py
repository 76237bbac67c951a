"""The documented application of Ray Serve: two replicas, each with an engine of its own."""

import asyncio
import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from host_processes import free_port
from PIL import Image
from small_bundle import write_small_bundle

import imagen_jax

ray = pytest.importorskip("ray", reason="needs `pip install 'ray[serve]'`")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own, of many kinds
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "ray_serve.py"
PATIENCE, REQUESTS = 300, 12


@pytest.fixture
def address(tmp_path: Path, monkeypatch) -> Iterator[tuple[str, Path]]:
    """The application's address, and its cascade."""
    folder = write_small_bundle(tmp_path / "tiny", dtype="float32")
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    environment = {"IMAGEN_CASCADE": str(folder), "PYTHONPATH": str(EXAMPLE.parent)}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ray.init(num_cpus=3, include_dashboard=False, runtime_env={"env_vars": environment})
    from ray import serve

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    from ray_serve import app

    serve.run(app)
    yield f"http://127.0.0.1:{port}", folder
    serve.shutdown()
    ray.shutdown()


def test_two_replicas_answer_with_the_same_bytes(address) -> None:
    place, folder = address

    async def work() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=place, timeout=PATIENCE) as client:
            bodies = [{"prompt": "a star", "seed": seed % 3} for seed in range(REQUESTS)]
            sent = (client.post("/v1/images/generations", json=body) for body in bodies)
            return await asyncio.gather(*sent)

    answers = asyncio.run(work())
    assert [answer.status_code for answer in answers] == [200] * REQUESTS
    alone = imagen_jax.load(folder)
    for number, answer in enumerate(answers):
        found = base64.b64decode(answer.json()["data"][0]["b64_json"])
        expected = alone("a star", seed=number % 3, progress=False)[0]
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(found))), expected)
    figures = [httpx.get(f"{place}/metrics").text for _ in range(40)]
    made = [re.search(r"^imagen_images_total ([0-9.]+)$", one, re.MULTILINE) for one in figures]
    shares = {float(found[1]) for found in made if found}
    assert sum(shares) == REQUESTS or shares == {REQUESTS / 2}  # two engines, which both worked
    assert 0.0 not in shares
