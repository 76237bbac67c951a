"""Options of `imagen sample`: values by stage, image files, the profile, previews."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import jaxtyping
import numpy as np
import pytest
from PIL import Image
from small_cascade import SMALL_BASE, SMALL_SR, make_stage

from imagen_jax import config, imagen
from imagen_jax.cli import compile_profile, prompts, sample, sample_inputs, sampler_overrides
from imagen_jax.cli.output import Output
from imagen_jax.cli.sample import Options
from imagen_jax.cli.sampler_options import SamplerOptions
from imagen_jax.io.png_metadata import read_metadata
from imagen_jax.text.encoder import TextEncoder


@pytest.fixture(scope="module")
def tiny() -> imagen.Imagen:
    """Two stages with random weights, 8 -> 16 px."""
    names = (SMALL_BASE, SMALL_SR)
    return imagen.Imagen(
        stages=tuple(make_stage(name, guidance_weight=3.0) for name in names),
        encoder=TextEncoder.from_config(config.load(names[0])[0].text),
        experiments=tuple(config.load(name)[0] for name in names),
        steps=(1, 1),
    )


@pytest.fixture
def run_sample(tiny, tmp_path: Path, monkeypatch):
    """`imagen sample` on that cascade; returns the images and the metadata."""
    monkeypatch.setattr("imagen_jax.load", lambda *_, **__: tiny)
    monkeypatch.setattr("imagen_jax.parallel.compilation_cache.use_cache", lambda: None)

    def run(*arguments: str) -> tuple[list[np.ndarray], dict]:
        sample.run(["tiny", *arguments, "--out", str(tmp_path / "out")])
        metadata = json.loads((tmp_path / "out" / "metadata.json").read_text())
        files = [tmp_path / "out" / entry["file"] for entry in metadata["images"]]
        return [np.asarray(Image.open(file)) for file in files], metadata

    return run


def _save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def _noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_options_by_stage() -> None:
    given = {"steps": "64,sr256=20", "sampler": "base=ddim", "threshold": None, "spacing": "logsnr"}
    assert sampler_overrides.read_overrides(given) == [
        (None, {"steps": 64}),
        (None, {"spacing": "logsnr"}),
        ("sr256", {"steps": 20}),
        ("base", {"kind": "ddim"}),
    ]
    assert sampler_overrides.read_overrides({"guidance_interval": "0.2:5"}) == [
        (None, {"guidance_interval": (0.2, 5.0)})
    ]
    # Every option is a field of the sampler, or the level of augmentation, and one of the command.
    fields = {f.name for f in dataclasses.fields(config.Sampler)} | {"aug_level"}
    assert {option.field for option in sampler_overrides.OPTIONS.values()} == fields
    assert set(sampler_overrides.OPTIONS) == {f.name for f in dataclasses.fields(SamplerOptions)}


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("steps", "2,3", "--steps '2,3': two values for all stages: give one"),
        ("steps", "4,sr=2,sr=3", "two values for sr: give one"),
        ("steps", "ten", r"--steps 'ten': wanted a whole number; of one stage NAME=VALUE"),
        ("sampler", "sr=euler", "--sampler 'euler': wanted one of ancestral, ddim"),
        ("guidance_interval", "3", "--guidance-interval '3': wanted LOW:HIGH"),
        ("spacing", "even", "--spacing 'even': wanted one of time, logsnr, karras"),
        ("threshold", "", "--threshold '': wanted one of none, static, dynamic"),
    ],
)
def test_values_that_are_none(option: str, value: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        sampler_overrides.read_overrides({option: value})


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--batch-size", "0"), "--batch-size 0: must be a whole number from 1 to 1048576"),
        (("--seed", "-1"), "--seed -1: must be a whole number from 0 to 4294967295"),
        (("--seed", "4294967297"), "--seed 4294967297: must be a whole number from 0"),
        (("--strength", "nan"), "--strength nan: must be a number from 0 to 1"),
        (("--preview-every", "-1"), "--preview-every -1: must be a whole number of 0 or more"),
        (("--guidance-weight", "nan"), "guidance_weight=nan: must be a number.* finite"),
        (("--steps", "0"), "steps=0: must be a whole number from 1 to 100000"),
        (("--size", "0x0"), "--size '0x0': wanted HEIGHTxWIDTH"),
    ],
)
def test_numbers_out_of_range(arguments: tuple[str, ...], sentence: str, run_sample) -> None:
    with pytest.raises(ValueError, match=sentence):
        run_sample("a", *arguments)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda x: x.with_sampler({"kind": "euler"}), "kind='euler': must be one of 'ancestral'"),
        (lambda x: x.with_sampler({"steps": "4"}), "steps='4': must be a whole number"),
        (lambda x: x.with_sampler({"steps": {"base8": 4}}), "steps={'base8': 4}: must be a whole"),
        (lambda x: x.with_sampler({"aug_level": True}), "sample_level=True: must be a number"),
        (lambda x: x.with_sampler({3: 4}), "unknown sampler option 3"),
        (lambda x: x.with_sampler("steps"), "changes='steps': must be a dictionary"),
        (lambda x: x(["a"], seed="x"), "seed='x': must be a whole number from 0"),
        (lambda x: x(["a"], seed=1.0), "seed=1.0: must be a whole number from 0"),
        (lambda x: x.sample(["a"], batch_size=0), "batch_size=0: must be a whole number from 1"),
        (lambda x: x.sample(["a"], batch_size=1.5), "batch_size=1.5: must be a whole number"),
        (lambda x: x.sample(["a"], last_stage="sr99"), "no stage 'sr99'"),
        (lambda x: x.sample(["a"], last_stage=3), "last_stage=3: must be"),
    ],
)
def test_wrong_types_from_python_are_named(tiny, call, sentence: str) -> None:
    jaxtyping.config.update("jaxtyping_disable", True)  # as users have it
    try:
        with pytest.raises(ValueError, match=sentence):
            call(tiny)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_a_list_and_numbers_of_numpy_are_taken(tiny) -> None:
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        changes = {"guidance_interval": [0.2, 5], "steps": np.int64(4)}
        sampler = tiny.with_sampler(changes).stages[0].stage.sampler
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    assert sampler.guidance_interval == (0.2, 5.0)
    assert type(sampler.steps) is int


def test_images_do_not_depend_on_jaxs_settings_of_random_numbers(tiny) -> None:
    quick = tiny.with_sampler({"steps": 1})
    usual = quick.sample(["a"], seed=3, last_stage="base8")["base8"]
    with jax.default_prng_impl("rbg"), jax.threefry_partitionable(False):
        again = quick.sample(["a"], seed=3, last_stage="base8")["base8"]
    np.testing.assert_array_equal(again, usual)


def test_each_stage_has_its_own_numbers(run_sample) -> None:
    _, metadata = run_sample(
        "a", "--steps", "3,sr16=2", "--spacing", "sr16=logsnr", "--guidance-weight", "base8=4.5"
    )
    samplers = {s["name"]: s["sampler"] for s in metadata["stages"]}
    assert [samplers[n]["steps"] for n in ("base8", "sr16")] == [3, 2]
    assert [samplers[n]["guidance_weight"] for n in ("base8", "sr16")] == [4.5, 3.0]
    assert [samplers[n]["spacing"] for n in ("base8", "sr16")] == [None, "logsnr"]
    with pytest.raises(ValueError, match="no stage 'sr99'"):
        run_sample("a", "--steps", "sr99=2")
    with pytest.raises(ValueError, match="guidance_rescale"):
        run_sample("a", "--guidance-rescale", "2")


def test_several_images_of_each_prompt(run_sample) -> None:
    images, metadata = run_sample("a", "b", "--images-per-prompt", "2")
    assert [p["prompt"] for p in metadata["images"]] == ["a", "a", "b", "b"]
    assert len({p.tobytes() for p in images}) == 4
    with pytest.raises(ValueError, match="--images-per-prompt 0"):
        run_sample("a", "--images-per-prompt", "0")


def test_the_negative_prompt_is_encoded_once(run_sample, monkeypatch) -> None:
    plain, _ = run_sample("a", "b")
    asked, encode = [], TextEncoder.encode

    def spying(self, captions, **options):
        asked.append(list(captions))
        return encode(self, captions, **options)

    monkeypatch.setattr(TextEncoder, "encode", spying)
    away, metadata = run_sample("a", "b", "--negative-prompt", "ugly")
    assert asked == [["a", "b", "ugly", ""]]
    assert metadata["negative_prompt"] == "ugly"
    assert all((x != y).any() for x, y in zip(plain, away, strict=True))


@pytest.mark.slow
def test_sampling_from_an_image_file(run_sample, tmp_path: Path) -> None:
    """Cut to the middle, so that a wide one fits; white of the mask is sampled again."""
    pixels = _noise(16, 24)
    file = _save(tmp_path / "wide.png", pixels)
    (same,), metadata = run_sample("a", "--init-image", str(file), "--strength", "0")
    np.testing.assert_array_equal(same, pixels[:, 4:20])
    assert metadata["init_image"] == str(file)
    (wide,), _ = run_sample("a", "--init-image", str(file), "--strength", "0", "--size", "16x24")
    np.testing.assert_array_equal(wide, pixels)
    white = np.zeros((16, 16), np.uint8)
    white[:8] = 255
    mask = _save(tmp_path / "mask.png", white)
    options = ("--init-image", str(file), "--mask", str(mask), "--resample", "2")
    (found,), _ = run_sample("a", *options)
    np.testing.assert_array_equal(found[8:], pixels[8:, 4:20])
    assert (found[:8] != pixels[:8, 4:20]).mean() > 0.8


def test_enlarging_image_files(run_sample, tmp_path: Path) -> None:
    file = _save(tmp_path / "one.png", _noise(5, 9))
    images, metadata = run_sample("--low-res", str(file), "--first-stage", "sr16")
    assert [p.shape for p in images] == [(10, 18, 3)]
    assert metadata["images"][0]["prompt"] == ""
    folder = tmp_path / "many"
    for name in "ab":
        _save(folder / f"{name}.png", _noise(5, 9))
    (folder / ".DS_Store").write_bytes(b"what macOS leaves")
    (folder / "._a.png").write_bytes(b"the same")
    assert len(run_sample("--low-res", str(folder), "--first-stage", "sr16")[0]) == 2
    with pytest.raises(ValueError, match="many has 2 files for 3 prompts"):
        run_sample("a", "b", "c", "--low-res", str(folder), "--first-stage", "sr16")
    _save(folder / "a.png", _noise(4, 9))
    with pytest.raises(ValueError, match="many has images of 4x9, 5x9 pixels"):
        run_sample("--low-res", str(folder), "--first-stage", "sr16")
    (folder / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a\.png is no image that can be read"):
        run_sample("--low-res", str(folder), "--first-stage", "sr16")


def test_files_that_are_not_there(tmp_path: Path, run_sample) -> None:
    with pytest.raises(FileNotFoundError, match="no image or folder of images"):
        run_sample("a", "--init-image", str(tmp_path / "missing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty is an empty folder"):
        sample_inputs.count(tmp_path / "empty")
    (tmp_path / "empty" / ".DS_Store").touch()
    with pytest.raises(ValueError, match="empty is an empty folder"):
        sample_inputs.count(tmp_path / "empty")
    with pytest.raises(ValueError, match="--size '16': wanted HEIGHTxWIDTH"):
        run_sample("a", "--size", "16")
    with pytest.raises(ValueError, match="stage 'base8' comes before 'sr16'"):
        run_sample("a", "--first-stage", "sr16", "--last-stage", "base8")


PROMPTS = "a red circle\n\na blue café\n"


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_prompts_of_a_file_are_read_in_its_own_unicode(tmp_path: Path, codec, end) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes(PROMPTS.replace("\n", end).encode(codec))
    assert prompts.read_prompts(file) == ["a red circle", "", "a blue café"]
    file.write_bytes(PROMPTS.rstrip().encode(codec))
    assert prompts.read_prompts(file) == ["a red circle", "", "a blue café"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (PROMPTS.encode("latin-1"), r"line 3: byte 0xe9 is no UTF-8; save the file as UTF-8"),
        ("红圆\n".encode("gb18030"), r"line 1: byte 0x[0-9a-f]+ is no UTF-8"),
        (b"a red circle\na\0b", "line 2 has bytes of 0"),
        (PROMPTS.encode("utf-16")[:-1], "is no UTF-16"),
    ],
)
def test_a_file_that_is_no_unicode_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"prompts\.txt, {says}|prompts\.txt.* {says}"):
        prompts.read_prompts(file)


@pytest.mark.parametrize(
    "arguments", [("a", "\udcff circle"), ("a", "--negative-prompt", "\udcff")]
)
def test_arguments_that_are_no_unicode_are_refused_first(monkeypatch, arguments) -> None:
    monkeypatch.setattr("imagen_jax.load", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(
        ValueError, match=r"prompt \d, '\\udcff.*', is no Unicode text: byte 0xff at"
    ):
        sample.run(["tiny", *arguments])


@pytest.mark.parametrize("given", [(), []])
def test_prompts_in_python_are_a_list(tiny, given) -> None:
    with pytest.raises(ValueError, match="prompts must be a list of at least one string"):
        tiny.encode(given)


def test_words_that_were_never_seen_are_warned_of(tiny) -> None:
    seen = dataclasses.replace(tiny, dataset="shapes/tiny")
    seen.encode(["a large red circle on a white background"], negative_prompt="a blue square")
    with pytest.warns(
        UserWarning, match=r"no caption of shapes/tiny.* the word 'elephant', 'ugly':"
    ):
        seen.encode(["a red elephant", "an elephant"], negative_prompt="ugly")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (("--aug-level", "base8=0.5"), r"--aug-level base8=0.5 would change nothing: base8: it is"),
        (("--percentile", "99", "--threshold", "static"), "--percentile 99.0 would change nothing"),
        (("--last-stage", "base8", "--aug-level", "0.5"), "--aug-level 0.5 would change nothing"),
        (
            ("--last-stage", "base8", "--steps", "sr16=2"),
            "--steps sr16=2 .* only base8 samples here",
        ),
        (
            ("--guidance-weight", "1", "--guidance-rescale", "sr16=0.5"),
            "--guidance-rescale sr16=0.5 .* does not guide",
        ),
        (
            ("--guidance-weight", "1", "--negative-prompt", "b"),
            "negative prompts would change nothing",
        ),
        (("--mask", "m.png"), "--mask m.png does nothing without --init-image: give that, too"),
        (("--known-pixels", "sr16=clean"), "--known-pixels sr16=clean does nothing without --mask"),
        (("--resample", "2"), "--resample 2 does nothing without --mask"),
        (("--strength", "0.5"), "--strength 0.5 does nothing without --init-image"),
        (("--low-res", "a.png"), "needs --first-stage with a super-.*: base8 enlarges nothing"),
        (("--first-stage", "sr16"), "sr16 enlarges images of 8 px: give --low-res"),
        (
            ("--first-stage", "sr16", "--low-res", "a.png", "--size", "16x16"),
            "--size and --low-res exclude each other",
        ),
    ],
)
def test_options_that_would_do_nothing(run_sample, given: tuple[str, ...], sentence: str) -> None:
    """By the names that they have on the command line."""
    with pytest.raises(ValueError, match=sentence):
        run_sample("a", *given)


@pytest.mark.parametrize("old", sample.RENAMED)
def test_an_option_of_another_name_is_refused_with_the_one_to_use(old: str) -> None:
    for argument in (old, f"{old}=2", old.replace("-", "_").replace("__", "--", 1)):
        with pytest.raises(ValueError, match=f"^{old} is {sample.RENAMED[old]} now$"):
            sample.run(["shapes", "a", argument])


def test_what_one_stage_reads_may_be_given_for_all(tiny) -> None:
    assert tiny.with_sampler({"aug_level": 0.3}).stages[1].stage.noise_conditioning
    with pytest.raises(ValueError, match=r"aug_level base8=0\.3 would change nothing"):
        tiny.with_sampler({"aug_level": 0.3}, stage="base8")
    with pytest.raises(ValueError, match=r"edm_rho 5\.0 would change nothing: base8: spacing"):
        tiny.with_sampler({"edm_rho": 5.0})
    with pytest.raises(ValueError, match=r"stochasticity 0\.5 would change nothing"):
        tiny.with_sampler({"kind": "ddim", "stochasticity": 0.5})
    tiny.with_sampler(dataclasses.asdict(config.Sampler(kind="ddim")))


def _masks() -> dict[str, Image.Image]:
    half = np.zeros((16, 16), np.uint8)
    half[:8] = 1
    clear = np.zeros((16, 16, 4), np.uint8)
    clear[:4] = 255
    red = np.stack([half * 255, half * 0, half * 0], axis=-1)
    palette = Image.fromarray(half).convert("P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    return {
        "binary": Image.fromarray(half),
        "black": Image.fromarray(half * 0),
        "red": Image.fromarray(red),
        "clear": Image.fromarray(clear),
        "wide": Image.fromarray(np.repeat(half * 255, 2, axis=1)),
        "deep": Image.fromarray(half.astype(np.uint16) * 65535),
        "bits": Image.fromarray(half.astype(bool)),
        "palette": palette,
        "large": Image.fromarray(half * 255).resize((64, 64)),
    }


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("binary", r"changes nothing: its brightest pixel is \(1, 1, 1\) .*a mask of 0 and 1"),
        ("black", r"changes nothing: its brightest pixel is \(0, 0, 0\) in"),
        ("red", r"changes nothing: its brightest pixel is \(255, 0, 0\) in"),
        ("clear", "changes everything: it is transparent, which counts as white"),
        ("wide", "has 32x16 pixels, --init-image 16x16: they must have the same shape"),
        ("deep", None),
        ("bits", None),
        ("palette", None),
        ("large", None),
    ],
)
def test_masks(tiny, tmp_path: Path, kind: str, sentence: str | None) -> None:
    image, mask = _save(tmp_path / "image.png", _noise(16, 16)), tmp_path / "mask.png"
    _masks()[kind].save(mask)
    options = Options("tiny", ("a", "b"), init_image=image, mask=mask)
    stages = [p.stage for p in tiny.stages]
    if sentence is None:
        white = sample_inputs.make_request(options, stages, 2).mask
        assert white[:, :8].all()
        assert not white[:, 8:].any()
    else:
        with pytest.raises(ValueError, match=sentence):
            sample_inputs.make_request(options, stages, 2)


def test_images_as_files_have_them(tiny, tmp_path: Path) -> None:
    """EXIF's orientation, an animation's first frame, 16 bits; hidden files are nobody's."""
    folder, pixels = tmp_path / "many", _noise(8, 8)
    exif = Image.Exif()
    exif[0x0112] = 6
    folder.mkdir()
    Image.fromarray(pixels[:, :4]).save(folder / "a.webp", exif=exif, lossless=True)
    frames = [Image.fromarray(pixels[:4] * 0 + n) for n in (0, 255)]
    frames[0].save(folder / "b.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.full((4, 8), 65535, np.uint16)).save(folder / "c.png")
    (folder / ".DS_Store").write_bytes(b"none")
    options = Options("tiny", ("a", "b", "c"), low_res=folder, first_stage="sr16")
    low = sample_inputs.make_request(options, [tiny.stages[1].stage], 3).low_res
    np.testing.assert_array_equal(low[0], np.rot90(pixels[:, :4], -1))
    assert (low[1].max(), low[2].min()) == (0, 255)


def test_an_image_to_start_from_beside_one_to_enlarge(tiny, tmp_path: Path) -> None:
    low = _save(tmp_path / "low.png", _noise(8, 12))
    wide, square = (_save(tmp_path / f"{side}.png", _noise(32, side)) for side in (48, 32))
    mask = _save(tmp_path / "mask.png", np.full((16, 24, 3), 255, np.uint8))
    stages = [tiny.stages[1].stage]
    given = {"low_res": low, "first_stage": "sr16", "last_stage": "sr16"}
    options = Options("tiny", ("a",), init_image=wide, mask=mask, **given)
    found = sample_inputs.make_request(options, stages, 1)
    assert found.low_res.shape == (1, 8, 12, 3)
    assert found.init_image.shape == (1, 16, 24, 3)
    assert found.mask.shape == (1, 16, 24)
    options = Options("tiny", ("a",), init_image=square, **given)
    with pytest.raises(ValueError, match=r"has 32x32 pixels, --low-res .* is enlarged to 24x16"):
        sample_inputs.make_request(options, stages, 1)


def test_one_image_of_a_list_alone(run_sample, tmp_path: Path) -> None:
    prompts = ["a", "b", "c", "d"]
    listed, _ = run_sample(*prompts, "--images-per-prompt", "2")
    (alone,), metadata = run_sample("c", "--first-index", "5")
    assert np.abs(alone.astype(int) - listed[5]).max() <= 1
    assert metadata["first_index"] == 5
    assert metadata["images"] == [{"index": 5, "prompt": "c", "file": "0005_c.png"}]
    assert metadata["complete"]
    with pytest.raises(ValueError, match="--first-index -1"):
        run_sample("c", "--first-index", "-1")


def test_images_of_an_earlier_call_are_set_aside_whole(run_sample, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_sample("a", "b")
    (out / "mine.png").write_bytes(b"not ours")
    run_sample("a", "b")  # the same again: nothing to keep apart
    assert not (out / "earlier").exists()
    run_sample("c")
    names = {"0000_c.png", "grid.png", "metadata.json", "mine.png", "earlier"}
    assert {f.name for f in out.iterdir()} == names
    earlier = {"0000_a.png", "0001_b.png", "grid.png", "metadata.json"}
    assert {f.name for f in (out / "earlier" / "1").iterdir()} == earlier
    run_sample("d")
    assert (out / "earlier" / "2" / "0000_c.png").is_file()
    (out / "metadata.json").write_text('{"images": [{"file": "../mine.png"}]}')
    with pytest.raises(ValueError, match=r"metadata\.json is none of `imagen sample` and would"):
        run_sample("e")
    assert (out / "0000_d.png").is_file()


def test_previews_are_saved(run_sample, tmp_path: Path) -> None:
    run_sample("a", "--steps", "4", "--preview-every", "2")
    names = sorted(f.name for f in (tmp_path / "out" / "previews").iterdir())
    assert names == [f"{s}_0000_{n:04d}.png" for s in ("base8", "sr16") for n in (2, 4)]


def test_previews_of_an_earlier_call_are_set_aside_with_its_images(
    run_sample, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run_sample("a", "--steps", "4", "--preview-every", "2")
    before = {f.name: f.read_bytes() for f in (out / "previews").iterdir()}
    run_sample("b", "--steps", "4", "--preview-every", "4")
    names = [f"{stage}_0000_0004.png" for stage in ("base8", "sr16")]
    assert sorted(f.name for f in (out / "previews").iterdir()) == names
    assert {f.name: f.read_bytes() for f in (out / "earlier/1/previews").iterdir()} == before
    run_sample("c")
    assert not (out / "previews").exists()


@pytest.mark.parametrize(
    "arguments", [("--mask", "{}"), ("--size", "8x9000000"), ("--first-stage", "sr16")]
)
def test_what_is_refused_leaves_no_folder(run_sample, tmp_path: Path, arguments: tuple) -> None:
    with pytest.raises((ValueError, OSError)):
        run_sample("a", *(x.format(tmp_path / "no.png") for x in arguments))
    assert list(tmp_path.iterdir()) == []


def test_the_profile_adds_up(run_sample, capsys) -> None:
    run_sample("a", "--profile")
    rows = re.findall(r"^\| ([\w ]+) \| ([\d.]+) \|", capsys.readouterr().out, re.MULTILINE)
    seconds = {name: float(value) for name, value in rows}
    assert list(seconds) == ["imports", "loading", "base8", "sr16", "saving", "together"]
    parts = sum(value for name, value in seconds.items() if name != "together")
    assert abs(parts - seconds["together"]) < 0.05


def test_spans_count_once() -> None:
    assert compile_profile.covered_seconds([(0.0, 1.0), (0.5, 2.0), (0.6, 0.7), (3.0, 4.0)]) == 3.0
    assert compile_profile.covered_seconds([]) == 0.0


def test_images_carry_what_they_were_made_of(tmp_path: Path) -> None:
    output = Output(tmp_path / "out", ["a", "b"], first_index=3, metadata={"seed": 7})
    output.write(3, np.stack([_noise(4, 4)] * 2))
    found = read_metadata((tmp_path / "out" / "0004_b.png").read_bytes())
    assert found == {"seed": 7, "index": 4, "prompt": "b"}
