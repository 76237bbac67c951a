"""`Imagen` in Python: options as users give them, one program for any number, what is shown."""

import dataclasses
import inspect
from collections.abc import Callable

import jax
import numpy as np
import pytest
from PIL import Image

from imagen_jax import config
from imagen_jax.diffusion import samplers
from imagen_jax.diffusion.prediction import from_x0
from imagen_jax.diffusion.samplers import SamplerParams, StepInputs
from imagen_jax.diffusion.schedules import add_noise
from imagen_jax.imagen import Imagen
from imagen_jax.sample.options import DIFFUSERS, NAMES, read_options
from imagen_jax.sample.request import PLAIN, Request
from imagen_jax.samples import ImageList, Samples
from imagen_jax.text.encoder import TextEncoder

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 16, 3), np.uint8)
PROMPTS = [f"a {size} red circle" for size in ("large", "small") for _ in range(8)]


@pytest.fixture(scope="module")
def tiny(stages) -> Imagen:
    encoder = TextEncoder.from_config(config.load("tiny/base8")[0].text)
    whole = Imagen(stages=tuple(stages[:2]), encoder=encoder)
    return whole.with_sampler({"steps": 2, "threshold": "static"})


def test_options_are_the_fields_of_a_request() -> None:
    assert {f.name for f in dataclasses.fields(Request)} | {"images_per_prompt"} == NAMES
    assert not NAMES & set(DIFFUSERS)


@pytest.mark.parametrize(
    "given", [PIXELS, [PIXELS], Image.fromarray(PIXELS), [Image.fromarray(PIXELS)] * 2]
)
def test_images_are_taken_from_pil_and_as_arrays_for_one_prompt_or_all(given) -> None:
    prompts, request = read_options(
        ["a", "b"], PLAIN, {"init_image": given, "images_per_prompt": 2, "strength": 0.5}
    )
    assert prompts == ["a", "a", "b", "b"]
    np.testing.assert_array_equal(request.init_image, np.stack([PIXELS] * 4))
    assert request.strength == 0.5


def test_images_and_negative_prompts_of_each_prompt_are_repeated_with_it() -> None:
    both = np.stack([PIXELS, 255 - PIXELS])
    options = {"low_res": both, "negative_prompt": ["x", "y"], "images_per_prompt": 2}
    _, request = read_options(["a", "b"], PLAIN, options)
    np.testing.assert_array_equal(request.low_res, both[[0, 0, 1, 1]])
    assert request.negative_prompt == ("x", "x", "y", "y")


def test_white_of_a_mask_is_sampled_again() -> None:
    white = np.zeros((8, 16), np.uint8)
    white[:, :4] = 255
    for mask in (Image.fromarray(white), white == 255, [white == 255]):
        options = {"init_image": PIXELS, "mask": mask}
        _, request = read_options("a", PLAIN, options)
        np.testing.assert_array_equal(request.mask[0], white == 255)
    clear = Image.new("RGBA", (16, 8), (0, 0, 0, 0))  # on white, as image files are
    _, request = read_options("a", PLAIN, {"init_image": PIXELS, "mask": clear})
    assert request.mask.all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"init_image": PIXELS, "mask": np.zeros((8, 16), np.uint8)}, "give an array of bool"),
        ({"init_image": [PIXELS] * 3}, "3 images in init_image for 2 prompts"),
        ({"low_res": [PIXELS, PIXELS[:4]]}, "low_res has images of the shapes"),
        ({"low_res": Image.new("I", (4, 4))}, "low_res is an image of mode I: convert it to RGB"),
        ({"images_per_prompt": 0}, "images_per_prompt=0: must be a whole number from 1 to 1000000"),
        ({"mask": np.ones((8, 16), bool)}, "mask needs init_image"),
        ({"init_image": PIXELS, "mask": np.zeros((8, 16), bool)}, "nothing of it would be sampled"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_options(["a", "b"], PLAIN, options)


@pytest.mark.parametrize("name", DIFFUSERS)
def test_names_of_diffusers_are_refused_with_the_one_to_use(name: str, tiny) -> None:
    with pytest.raises(TypeError, match=f"^{name} is the name in diffusers: use "):
        tiny("a", **{name: 1})


def test_an_unknown_option_is_refused(tiny) -> None:
    with pytest.raises(TypeError, match=r'steps is the sampler.s: use `with_sampler\(\{"steps": '):
        tiny.sample(["a red circle"], steps=3)
    with pytest.raises(TypeError, match="no option 'sedd'; there are first_index, "):
        tiny("a", sedd=1)


def test_a_number_of_the_sampler_is_an_argument_of_its_program(stages) -> None:
    """Or is listed here, with what else a program is compiled for."""
    compiled_for = {"kind", "spacing", "guidance_interval", "threshold", "percentile"}
    compiled_for |= {"edm_rho", "edm_sigma_min", "edm_sigma_max", "threshold_max"}
    compiled_for |= {"timesteps", "final_noise", "known_pixels"}
    fields = {f.name for f in dataclasses.fields(config.Sampler)}
    assert fields - samplers.TRACED == compiled_for
    changes = dict.fromkeys(samplers.TRACED, 1.0) | {"steps": 3, "guidance_weight": 2.0}
    changed = dataclasses.replace(stages[0].stage.sampler, **changes)
    params = SamplerParams.from_config(changed)
    assert {name: getattr(params, name) for name in samplers.TRACED} == changes
    stage = dataclasses.replace(stages[0].stage, sampler=changed)
    assert dataclasses.replace(stages[0], stage=stage).program() == stages[0].program()


def _compiled(run: Callable[[], object]) -> int:
    """Programs that are compiled during a call."""
    count, listening = 0, True

    def hear(event: str, seconds: float, **_: object) -> None:
        nonlocal count
        count += listening and event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(hear)
    run()
    listening = False
    return count


def test_another_number_of_prompts_compiles_nothing_and_gives_the_same_images(tiny) -> None:
    nine = tiny.sample(PROMPTS[:9])
    found: list[Samples] = []
    assert _compiled(lambda: found.append(tiny.sample(PROMPTS[:13]))) == 0
    for name, images in found[0].items():
        assert len(images) == 13
        np.testing.assert_array_equal(images[:9], nine[name])


def test_a_step_rule_of_ones_own(tiny) -> None:
    def my_step(step: StepInputs, denoise) -> jax.Array:
        eps = from_x0(step.x0, step.z_t, step.logsnr_t, predicts="eps")
        return add_noise(step.x0, eps, step.logsnr_s)

    longer = tiny.with_sampler({"steps": 4})
    expected = longer.with_sampler({"kind": "ddim"}).sample("a red circle")
    mine = longer.with_step_rule(my_step).sample("a red circle")
    for name, images in expected.items():
        np.testing.assert_array_equal(mine[name], images)
    alone = longer.with_step_rule(my_step, stage="sr16").sample("a red circle")
    assert (alone["base8"] != expected["base8"]).any()
    with pytest.raises(ValueError, match="no stage 'sr99'"):
        tiny.with_step_rule(my_step, stage="sr99")


def test_results_are_short_and_show_themselves(tiny) -> None:
    samples = tiny.sample("a red circle", images_per_prompt=2)
    assert repr(tiny) == "Imagen(base8 8x8, sr16 16x16)"
    assert repr(samples) == "Samples(2 images: base8 8x8, sr16 16x16)"
    images = samples.last_images()
    assert isinstance(images, ImageList)
    assert repr(images) == "ImageList(2 images of 16x16 pixels)"
    for shown in (samples, images):
        assert shown._repr_png_().startswith(b"\x89PNG")
    assert [image.size for image in images] == [(16, 16)] * 2


def test_a_bar_shows_the_progress_where_it_is_wanted(tiny, capsys, monkeypatch) -> None:
    tiny("a red circle")
    assert capsys.readouterr().err == ""  # no terminal
    tiny("a red circle", progress=True)
    assert "2/2" in capsys.readouterr().err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    tiny("a red circle")
    assert "2/2" in capsys.readouterr().err
    tiny("a red circle", progress=False)
    assert capsys.readouterr().err == ""


def test_all_ways_to_sample_take_the_same_arguments() -> None:
    signatures = [inspect.signature(f) for f in (Imagen.__call__, Imagen.sample, Imagen.stream)]
    assert len({str(s.replace(return_annotation=None)) for s in signatures}) == 1
