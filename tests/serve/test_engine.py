"""The engine: the bytes of an image, whatever else is sampled; partial images, errors, the end."""

import dataclasses

import jax
import numpy as np
import pytest
from served_images import PATIENCE, Waiter, ask, sample

from imagen_jax.imagen import Imagen
from imagen_jax.serve import engine as engines
from imagen_jax.serve.engine import Draining, Engine
from imagen_jax.serve.image_request import Failed, Partial
from imagen_jax.serve.metrics import Metrics

PROMPTS = ("a large red circle", "a small green star", "")


def made_offline(tiny: Imagen, request) -> np.ndarray:
    """The images that `Imagen` makes of a request, in batches of the engine's size."""
    options = {} if request.steps is None else {"steps": request.steps}
    imagen = tiny.with_sampler(options, stage="base8") if options else tiny
    for trained in tiny.stages:  # those with guidance
        if request.guidance_weight is not None and trained.stage.sampler.guidance_weight != 1.0:
            changes = {"guidance_weight": request.guidance_weight}
            imagen = imagen.with_sampler(changes, stage=trained.stage.name)
    size = {} if request.init_image is not None else {"size": request.size}
    if request.init_image is not None:
        size |= {"init_image": request.init_image, "strength": request.strength}
    if request.mask is not None:
        size |= {"mask": request.mask}
    images = imagen.sample(
        [request.prompt] * request.count,
        seed=request.seed,
        batch_size=8,
        negative_prompt=request.negative_prompt,
        progress=False,
        **size,
    )
    return images["sr16"]


def requests() -> list:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    mask = np.arange(256).reshape(16, 16) % 16 < 8
    return [
        ask(7, PROMPTS[0], count=3),
        ask(7, PROMPTS[1]),
        ask(8, PROMPTS[2], count=2),
        ask(9, PROMPTS[0], negative_prompt=PROMPTS[1]),
        ask(10, PROMPTS[0], steps=2, guidance_weight=1.5),
        ask(11, PROMPTS[1], init_image=image, strength=0.5),
        ask(12, PROMPTS[1], init_image=image, mask=mask),
    ]


def test_images_are_the_same_alone_and_among_others_and_offline(engine, tiny) -> None:
    """Equal to the bit: seeds, indices, negative prompts, steps, guidance, an image."""
    asked = requests()[:6]
    alone = [Waiter(engine, one).images() for one in asked]
    others = [ask(100 + i, PROMPTS[i % 3]) for i in range(20)]
    among = sample(engine, [*others[:10], *asked, *others[10:]])[10:-10]
    for request, first, second in zip(asked, alone, among, strict=True):
        np.testing.assert_array_equal(first, second)
        if request.init_image is None:  # one program less to compile
            np.testing.assert_array_equal(first, made_offline(tiny, request))
    assert len({image.tobytes() for images in alone for image in images}) == 9


@pytest.mark.slow
def test_so_they_are_with_two_networks_and_a_mask(whole_engine, whole) -> None:
    alone = [Waiter(whole_engine, one).images() for one in requests()]
    among = sample(whole_engine, [ask(100), *requests(), ask(101)])[1:-1]
    for request, first, second in zip(requests(), alone, among, strict=True):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, made_offline(whole, request))


@pytest.mark.slow
def test_pixels_outside_a_mask_stay(engine) -> None:
    request = requests()[-1]
    (image,) = Waiter(engine, request).images()
    np.testing.assert_array_equal(image[~request.mask], request.init_image[~request.mask])
    assert (image[request.mask] != request.init_image[request.mask]).any()


def test_partial_images_come_in_order_and_show_something(engine) -> None:
    waiter = Waiter(engine, ask(1, count=2, partials=3))
    waiter.images()
    for index in range(2):
        partials = [one for one in waiter.partials if one.index == index]
        assert [one.number for one in partials] == [0, 1, 2]
        assert [one.share for one in partials] == sorted({one.share for one in partials})
        assert all(one.pixels.std() > 1 for one in partials)
        assert {one.pixels.shape for one in partials} == {(8, 8, 3), (16, 16, 3)}


def test_words_that_the_cascade_never_saw_are_reported(engine) -> None:
    waiter = Waiter(engine, ask(1, "a purple elephant"))
    waiter.images()
    assert "'elephant'" in " ".join(waiter.ticket.warnings)


def test_a_request_given_up_ends_within_a_step(engine, monkeypatch) -> None:
    """Of two hundred steps a quarter is made; what follows need not wait for the others."""
    waiter = Waiter(engine, ask(1, steps=200, partials=3, count=9))
    assert isinstance(waiter.next(), Partial)
    before = engine.metrics.cancelled._value.get()
    engine.cancel(waiter.ticket)
    Waiter(engine, ask(2)).images()
    assert engine.metrics.cancelled._value.get() == before + 8
    assert not engine._open
    assert not len(engine._waiting)


def test_a_failing_batch_fails_its_requests_alone(engine, monkeypatch) -> None:
    begin = engine._batches.begin

    def fail(jobs: list) -> object:
        if jobs[0].ticket.request.seed == 5:
            raise RuntimeError("no memory")
        return begin(jobs)

    monkeypatch.setattr(engine._batches, "begin", fail)
    waiter = Waiter(engine, ask(5, steps=2))
    with pytest.raises(RuntimeError, match="no memory"):
        waiter.images()
    assert Waiter(engine, ask(6, steps=2)).images().shape == (1, 16, 16, 3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"size": (17, 16)}, "multiples of 2"),
        ({"size": (6, 6)}, "multiples of 2"),
        ({"seed": -1}, "0 to 4294967295"),
        ({"steps": 0}, "of 1 or more|from 1"),
        ({"count": 65}, "n: 65 images are more than may wait here, 64: ask for fewer"),
    ],
)
def test_what_the_cascade_can_not_make_is_refused(engine, changes: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Waiter(engine, dataclasses.replace(ask(0), **changes))
    assert not engine._open


def test_guidance_without_guidance_is_refused(tiny) -> None:
    plain = tiny.with_sampler({"guidance_weight": 1.0})
    stopped = Engine(plain, batch_size=8, max_queue=8, metrics=Metrics())
    with pytest.raises(ValueError, match="no stage of this cascade has guidance"):
        stopped.check(ask(0, guidance_weight=3.0))
    with pytest.raises(ValueError, match="negative prompts would change nothing"):
        stopped.check(ask(0, negative_prompt="a star"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": 8}, r"sampler\.steps=8, but the network is distilled \(progressive\) for 3"),
        ({"guidance_weight": 7.0}, r"guidance_weight=7, .* distilled for 1 to 6"),
        ({"guidance_weight": 0.0}, r"guidance_weight=0, .* distilled for 1 to 6"),
    ],
)
def test_a_student_refuses_what_it_was_not_trained_for(distilled, changes: dict, says: str) -> None:
    """Its guidance weight stays a choice where its own is 1."""
    student = distilled.stages[0].stage
    stopped = Engine(distilled, batch_size=8, max_queue=8, metrics=Metrics())
    stopped.check(ask(0, steps=3, guidance_weight=2.0))
    assert ask(0, guidance_weight=2.0).sampler(student, is_first=True).guidance_weight == 2.0
    with pytest.raises(ValueError, match=says):
        stopped.check(ask(0, **changes))


def test_draining_finishes_what_waits_and_stopping_fails_it(tiny) -> None:
    own = Engine(tiny, batch_size=8, max_queue=64, metrics=Metrics())
    own.start()
    assert own.is_ready
    waiter = Waiter(own, ask(1))
    own.drain()
    assert not own.is_ready
    with pytest.raises(Draining):
        Waiter(own, ask(2))
    waiter.images()
    own.stop()
    assert not own._thread.is_alive()


def test_stopping_answers_everybody(tiny) -> None:
    own = Engine(tiny, batch_size=8, max_queue=64, metrics=Metrics())
    waiters = [Waiter(own, ask(1, count=12)), Waiter(own, ask(2, steps=1000), "b")]
    own.start()
    own.stop()
    for waiter in waiters:
        event = waiter.next()
        while not isinstance(event, Failed):
            event = waiter.next()
        assert isinstance(event.error, Draining)
    own._thread.join(PATIENCE)
    assert own.is_idle


@pytest.mark.slow
def test_warming_compiles_all_that_images_need(tiny) -> None:
    """Prompts of other lengths, too."""
    own = Engine(tiny, batch_size=8, max_queue=64, metrics=Metrics())
    said: list[str] = []
    own.warm([(16, 16)], lambda what, seconds: said.append(what))
    stages = {"base8 of 8x8", "sr16 of 16x16"}
    lengths = {f"the text encoder of {n} tokens" for n in tiny.encoder.lengths}
    assert set(said) == stages | {f"{stage} with masks" for stage in stages} | lengths
    assert len(said) == len(set(said))
    assert own.metrics.rows.labels("image")._value.get() == 0
    compiled, listening = [], True

    def hear(event: str, seconds: float, **_: object) -> None:
        if listening and event == "/jax/core/compile/backend_compile_duration":
            compiled.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(hear)
    own.start()
    long = [ask(1, " ".join(["a large red circle"] * n), partials=2) for n in range(1, 9)]
    sample(own, [*requests(), *long])
    own.stop()
    listening = False
    assert compiled == []


def test_the_default_batch_is_small_on_a_host() -> None:
    assert engines.default_batch_size() == 1
