"""Every cascade in the box loads, is as its manifest says, and gets into the wheel."""

import json
import runpy
import sys
import types
from pathlib import Path

import pytest

import imagen_jax
from imagen_jax import export, pretrained
from imagen_jax.evaluate import alignment
from imagen_jax.export.manifest import WORDS
from imagen_jax.io import run_dir

SETUP = Path(__file__).parents[2] / "setup.py"
PROMPTS = SETUP.parent / "launch/prompts.txt"
LIMIT = 30_000_000  # bytes of weights


@pytest.fixture(scope="module")
def packaged() -> list[str]:
    """The patterns by which setup.py adds files to `imagen_jax.pretrained`."""
    seen: dict = {}
    stub = types.ModuleType("setuptools")
    stub.setup = lambda **options: seen.update(options)
    stub.find_packages = lambda *_, **__: []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "setuptools", stub)
        runpy.run_path(str(SETUP))
    return seen["package_data"]["imagen_jax.pretrained"]


def test_the_wheel_takes_what_export_writes(packaged: list[str], tmp_path: Path) -> None:
    names = [f"base/{run_dir.WEIGHTS}", "base/config.json", export.MANIFEST, export.CARD, WORDS]
    for file in (tmp_path / "cascade" / name for name in names):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    taken = {p.relative_to(tmp_path / "cascade") for x in packaged for p in tmp_path.glob(x)}
    assert taken == {Path(name) for name in names}


@pytest.mark.parametrize("name", pretrained.list_names())
def test_an_embedded_cascade_loads_and_is_small(name: str) -> None:
    imagen = imagen_jax.load(name)
    assert [s > 0 for s in imagen.steps] == [True] * len(imagen.stages)
    assert imagen.stages[0].stage.low_size is None
    files = pretrained.folder_of(name).glob(f"*/{run_dir.WEIGHTS}")
    assert sum(file.stat().st_size for file in files) <= LIMIT


@pytest.mark.parametrize("name", pretrained.list_names())
def test_an_embedded_cascade_is_as_its_manifest_and_card_say(name: str) -> None:
    folder = pretrained.folder_of(name)
    export.verify_bundle(folder)
    stages = json.loads((folder / export.MANIFEST).read_text())["stages"]
    card = (folder / export.CARD).read_text()
    for stage, facts in stages.items():
        assert f"| `{stage}` | {facts['parameters']:,} | {facts['step']:,} " in card
    assert "imagen train " in card


@pytest.mark.parametrize("name", pretrained.list_names())
def test_no_place_of_the_machine_that_trained_it_is_in_the_package(name: str) -> None:
    imagen = imagen_jax.load(name)
    assert [e.teacher.folder for e in imagen.experiments] == [""] * len(imagen.experiments)
    for file in pretrained.folder_of(name).rglob("config.json"):
        texts = [x for x in json.loads(file.read_text()).values() if isinstance(x, dict)]
        assert not any(str(v).startswith("/") for x in texts for v in x.values())


@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize(
    "name",
    ["shapes-fast", pytest.param("shapes", marks=pytest.mark.slow)],  # golden tests draw it
)
def test_the_box_draws_what_its_prompts_say(name: str) -> None:
    prompts = (PROMPTS.read_text().splitlines())[:8]
    pictures = imagen_jax.load(name).sample(prompts, seed=0, last_stage="sr64")["sr64"]
    share, judged = alignment.score(list(pictures), prompts)["all"]
    assert judged == 8
    assert share >= 7 / 8


@pytest.mark.usefixtures("one_device")
def test_hearts_of_emoji_have_the_colours_that_their_prompts_say() -> None:
    emoji = imagen_jax.load("emoji")
    prompts = [f"{colour} heart, flat drawing" for colour in ("red", "green", "blue")]
    images = emoji.sample(prompts, seed=0, last_stage="base32")["base32"]
    assert images[:, 10:20, 10:22].mean(axis=(1, 2)).argmax(axis=1).tolist() == [0, 1, 2]
    with pytest.warns(UserWarning, match="no caption in training has the word 'zyzzyva':"):
        emoji.encode(["a 3D zyzzyva"])


def test_the_fast_box_calls_its_networks_eight_times() -> None:
    stages = [trained.stage for trained in imagen_jax.load("shapes-fast").stages]
    assert [stage.sampler.steps for stage in stages] == [5, 2, 1]
    assert not any(stage.is_guided for stage in stages)
