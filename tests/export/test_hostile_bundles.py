"""Bundles that strangers made: refused by a sentence, and nothing of elsewhere is read."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import imagen_jax
from imagen_jax.export import manifest
from imagen_jax.io import run_dir, safetensors

HOSTILE = Path(__file__).parents[1] / "fixtures" / "hostile" / "names"


@pytest.fixture
def copy(random_bundle: Path, tmp_path: Path) -> Path:
    """A bundle to change."""
    return shutil.copytree(random_bundle, tmp_path / "copy")


def _sign(folder: Path, change=lambda facts: None) -> None:
    """Write the manifest again, of the files as they are now, as who made them could."""
    facts = json.loads((folder / "manifest.json").read_text())
    for key in ("format", "files", "sha256"):
        del facts[key]
    change(facts)
    card = (folder / "README.md").read_text()
    for name in ("manifest.json", "README.md"):
        (folder / name).unlink()
    manifest.write_manifest(folder, facts)
    (folder / "README.md").write_text(card)


def _document(folder: Path, change) -> None:
    """Write any manifest, with a right digest of itself."""
    facts = json.loads((folder / "manifest.json").read_text())
    del facts["sha256"]
    change(facts)
    facts["sha256"] = manifest._digest(facts)
    (folder / "manifest.json").write_text(json.dumps(facts))


def test_a_stage_that_would_write_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base16").mkdir()
    shutil.copy(HOSTILE / "stage-name.manifest.json", tmp_path / "manifest.json")
    shutil.copy(HOSTILE / "stage-name.config.json", tmp_path / "base16" / "config.json")
    with pytest.raises(ValueError, match=r"is not as manifest\.json says: "):
        imagen_jax.load(tmp_path)  # its weights are not here
    with pytest.raises(ValueError, match=r"stage: name is '\.\./\.\./\.\./outside/PWNED'"):
        run_dir.read_config(tmp_path / "base16")


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a\x1b[2J", "-x"])
def test_a_signed_bundle_with_a_hostile_stage_is_refused(copy: Path, name: str) -> None:
    file = copy / "base8" / "config.json"
    document = json.loads(file.read_text())
    document["stage"]["name"] = name
    file.write_text(json.dumps(document))
    _sign(copy)
    with pytest.raises(ValueError, match=r"base8/config\.json: stage: name is .* no name"):
        imagen_jax.load(copy)
    _sign(copy, lambda facts: facts["stages"].update({name: {}}))
    with pytest.raises(
        ValueError, match=r"manifest\.json: not a manifest \(the name of a stage is"
    ):
        imagen_jax.load(copy)


@pytest.mark.parametrize("into", ["base8", "more"])
def test_a_stage_behind_a_link_is_refused(copy: Path, into: str) -> None:
    """Of the manifest's files or not, and whatever the link leads to."""
    shutil.move(copy / "base8", copy.parent / "elsewhere")
    (copy / into).symlink_to(copy.parent / "elsewhere")
    with pytest.raises(ValueError, match=r"base8/config\.json.*(missing|is a link out of)"):
        imagen_jax.load(copy)
    if into == "more":
        shutil.copytree(copy.parent / "elsewhere", copy / "base8")
        with pytest.raises(ValueError, match="says: more is not listed"):
            imagen_jax.load(copy)


def test_a_link_to_the_same_bundle_is_refused_too(copy: Path) -> None:
    (copy / "again").symlink_to("base8")
    with pytest.raises(ValueError, match="says: again is not listed"):
        imagen_jax.load(copy)


def test_a_manifest_that_is_a_link_out_of_the_bundle_is_refused(copy: Path) -> None:
    shutil.move(copy / "manifest.json", copy.parent / "elsewhere.json")
    (copy / "manifest.json").symlink_to("../elsewhere.json")
    with pytest.raises(ValueError, match=r"manifest\.json, which a bundle names, is a link out of"):
        imagen_jax.load(copy)


def test_a_bundle_of_links_alone_is_refused(copy: Path) -> None:
    """None of its stages is in it, and each lies in a whole bundle."""
    links = copy.parent / "links"
    links.mkdir()
    shutil.copy(copy / "manifest.json", links)
    for name in ("base8", "sr16"):
        (links / name).symlink_to(copy / name)
    with pytest.raises(ValueError, match="is a link out of"):
        imagen_jax.load(links)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "base8/../../x", "a\x1b[2J"])
def test_a_manifest_names_files_of_its_folder(copy: Path, name: str) -> None:
    entry = {"bytes": 1, "sha256": ""}
    _document(copy, lambda facts: facts["files"].update({name: entry}))
    with pytest.raises(
        ValueError, match=r"manifest\.json names .* which is no file in its"
    ) as told:
        imagen_jax.load(copy)
    assert str(told.value).isprintable()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f.update(files=[]), "files: expected fields"),
        (lambda f: f.update(files={"x": 3}), r"files\['x'\]: expected the fields of FileEntry"),
        (lambda f: f["files"].update(x={"bytes": "1", "sha256": ""}), "bytes: expected int"),
        (lambda f: f.update(text=[]), "text: expected the fields of TextEncoderEntry"),
        (lambda f: f["text"].update(kind="x"), "text.kind: 'x' is none of"),
        (lambda f: f["text"].update(width=None), "text.width: expected int"),
        (lambda f: f["text"].update(encoder="a\x1b"), "text: encoder is .*control characters"),
        (lambda f: f.update(versions=3), "versions: expected fields"),
        (lambda f: f.update(stages=[]), "stages: expected fields"),
        (lambda f: f.pop("files"), "missing key 'files'"),
        (lambda f: f["text"].update(more=1), "unknown key 'more'"),
        (lambda f: f.update(dataset=1), "dataset: expected str"),
    ],
)
def test_a_manifest_of_other_types_is_refused(copy: Path, change, says: str) -> None:
    _document(copy, change)
    with pytest.raises(ValueError, match=rf"manifest\.json: not a manifest \(.*{says}"):
        imagen_jax.load(copy)


@pytest.mark.parametrize(
    "text",
    ["[" * 10**5, '{"a":' * 10**5, "[]", "1", '"x"', "\udcff"],
    ids=lambda text: ascii(text[:4]),
)
def test_what_is_no_manifest_is_refused(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text, errors="surrogateescape")
    with pytest.raises(ValueError, match=r"manifest\.json (is not JSON|has no fields).*export it"):
        imagen_jax.load(copy)


def test_weights_that_change_after_they_were_found_are_refused(copy: Path) -> None:
    """Small ones, too: what is used is what is compared."""
    imagen = imagen_jax.load(copy)
    file = copy / "base8" / run_dir.WEIGHTS
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"says: base8/weights\.safetensors has changed;"):
        imagen.stages[0].device_params()


def test_weights_that_do_not_fit_are_listed(copy: Path) -> None:
    """Of the version that is here, and with a right digest."""
    file = copy / "base8" / run_dir.WEIGHTS
    named = safetensors.read_named(file)
    first, second, *_ = sorted(named)
    named["more/kernel"] = np.zeros((2, 3), np.float32)
    named[second] = np.zeros((7, 7), np.float32)
    del named[first]
    safetensors.save_params(file, safetensors.nest(named), dtype="float32", metadata={"step": "1"})
    _sign(copy)
    imagen = imagen_jax.load(copy)
    with pytest.raises(ValueError, match=r"base8/weights\.safetensors: the weights do not") as told:
        imagen.stages[0].device_params()
    for line in (f"missing {first} (", "extra more/kernel (2, 3)", f"{second} is (7, 7), wanted ("):
        assert line in str(told.value)


def test_the_weights_of_a_whole_bundle_are_what_was_written(copy: Path) -> None:
    for trained in imagen_jax.load(copy).stages:
        written = safetensors.load_params(copy / trained.stage.name / run_dir.WEIGHTS)
        jax.tree.map(np.testing.assert_array_equal, trained.device_params(), written)


def test_a_link_to_a_cascade_of_runs_is_no_bundle(copy: Path, tmp_path: Path) -> None:
    """Whose runs lie elsewhere, a user's own links lead to them."""
    together = tmp_path / "together"
    together.mkdir()
    for name in ("base8", "sr16"):
        (together / name).symlink_to(copy / name)
    assert [e.stage.name for e in imagen_jax.load(together).experiments] == ["base8", "sr16"]
