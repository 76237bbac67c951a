"""One training step: what it changes, what it depends on, and on how many devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_batches import SMALL_SR, make_batch
from small_cascade import draw_params
from small_network import SMALL

from imagen_jax import config, models, rng
from imagen_jax.data.pipeline import Batch
from imagen_jax.parallel import auto_layout, mesh
from imagen_jax.train import optim, state, step

# Of one level, which attends to itself and the text once.
ATTENDING = config.UNet(
    channels=8,
    channel_mult=(1,),
    res_blocks=1,
    attention_at=(8,),
    attention_every_block=False,
    head_channels=8,
    norm_groups=4,
)
PREDICTS: tuple[config.Predicts, ...] = ("eps", "x0", "v")


def _with_model(model: config.UNet) -> config.Experiment:
    """`tiny/base8` with another network."""
    experiment = config.load("tiny/base8")[0]
    return dataclasses.replace(experiment, stage=dataclasses.replace(experiment.stage, model=model))


def _setup(experiment: config.Experiment):
    module = models.build(experiment.stage.model)
    rule = optim.build(experiment.optim, steps=10)
    init = functools.partial(state.init, experiment=experiment, module=module, rule=rule)
    return module, rule, init


def _drawn(init) -> state.TrainState:
    """A state that no initialiser has to be compiled for, and none of whose weights is zero."""
    shapes = jax.eval_shape(init, rng.root(0))
    params = draw_params(shapes.params)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    return zeros.replace(params=params, ema=params)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(SMALL_SR, id="small"),
        *(pytest.param(f"tiny/{n}", marks=pytest.mark.slow) for n in ("base8", "sr16", "sr32")),
    ],
)
def test_eight_devices_train_as_one(name: str) -> None:
    experiment = config.load(name)[0]
    module, rule, init = _setup(experiment)
    root, batches = rng.root(0), [make_batch(name, seed=s) for s in range(2)]
    plain = jax.jit(step.build(experiment, module, rule))
    devices = mesh.build(auto_layout.choose_axes(config.Mesh(fsdp=2)))
    shardings = mesh.state_shardings(jax.eval_shape(init, root), devices, min_shard_bytes=2**10)
    assert any(not s.is_fully_replicated for s in jax.tree.leaves(shardings))
    by_batch, whole = mesh.batch_sharding(devices), mesh.replicated_sharding(devices)
    sharded = jax.jit(
        step.build(experiment, module, rule),
        in_shardings=(shardings, by_batch, whole),
        out_shardings=(shardings, whole),
    )
    first, losses, begun = {}, {}, {}
    for way, run, start in (
        ("one", plain, jax.jit(init)(root)),
        ("eight", sharded, jax.jit(init, out_shardings=shardings)(root)),
    ):
        current, losses[way] = start, []
        begun[way] = start.ema
        for batch in batches:
            current, metrics = run(current, batch, root)
            losses[way].append(float(metrics["loss"]))
        first[way] = current
        assert int(current.step) == 2
    np.testing.assert_allclose(losses["one"], losses["eight"], rtol=2e-5)
    # The zero-initialised head predicts no noise at first: the loss is the noise's variance.
    assert losses["one"][0] == pytest.approx(1.0, abs=0.06)
    ended, begun = jax.device_get((first["one"].ema, begun["one"]))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), ended, begun)
    assert max(jax.tree.leaves(moved)) > 0


def test_dropped_text_leaves_no_gradient() -> None:
    experiment = _with_model(ATTENDING)
    module, _, init = _setup(experiment)
    params = _drawn(init).params
    batch = jax.tree.map(jnp.asarray, make_batch("tiny/base8"))

    def moved_by_text(rate: float) -> float:
        stage = dataclasses.replace(experiment.stage, text_drop_rate=rate)
        loss = step.loss_function(stage, module)
        of_text = jax.jit(
            jax.grad(lambda text: loss(params, batch._replace(text=text), rng.root(1))[0])
        )(batch.text)
        return float(jnp.abs(of_text).max())

    assert moved_by_text(1.0) == 0.0
    assert moved_by_text(0.0) > 0.0


class _Recorder:
    """Stands in for a network: predicts zero and keeps the conditioning that it was shown."""

    def __init__(self) -> None:
        self.seen: list[models.Conditioning] = []

    def apply(self, variables, *args, method=None, train=False, rngs=None):
        if method == "encode_text":
            return models.Conditioning(kv={}, text_mask=args[1], pooled=None)
        self.seen.append(args[2])
        return jnp.zeros_like(args[0])


@pytest.mark.parametrize("predicts", PREDICTS)
def test_the_target_does_not_depend_on_the_conditioning(predicts) -> None:
    """A zero network's loss is the target's size: equal whatever the low-resolution input holds."""
    stage = config.load("tiny/sr16")[0].stage
    stage = dataclasses.replace(stage, diffusion=config.Diffusion(predicts=predicts))
    batch = make_batch("tiny/sr16")
    loss = jax.jit(step.loss_function(stage, _Recorder()))
    found = [
        float(loss({}, b, rng.root(2))[0])
        for b in (batch, batch._replace(low_pixels=255 - batch.low_pixels))
    ]
    assert found[0] == found[1]


def test_the_network_sees_the_augmentation_noise() -> None:
    """What reaches the network is the noised picture, at the level that it is told."""
    batch, recorder = make_batch("tiny/sr16"), _Recorder()
    grey = batch._replace(low_pixels=np.full_like(batch.low_pixels, 128))
    step.loss_function(config.load("tiny/sr16")[0].stage, recorder)({}, grey, rng.root(4))
    (cond,) = recorder.seen
    sigma = jnp.sqrt(jax.nn.sigmoid(-cond.aug_logsnr))
    np.testing.assert_allclose(jnp.std(cond.low_res, axis=(1, 2, 3)), sigma, rtol=0.1)
    assert float(sigma.max() - sigma.min()) > 0.3  # a level per example


def test_the_conditioning_knows_nothing_of_the_target() -> None:
    """Fine-tuning scripts elsewhere fed the noisy target twice."""
    batch, recorder = make_batch("tiny/sr16"), _Recorder()
    loss = step.loss_function(config.load("tiny/sr16")[0].stage, recorder)
    for pixels in (batch.pixels, 255 - batch.pixels):
        loss({}, batch._replace(pixels=pixels), rng.root(4))
    first, second = recorder.seen
    np.testing.assert_array_equal(first.low_res, second.low_res)


def test_a_trained_model_listens_to_its_captions() -> None:
    """After a short run on two captions and two plain images, swapped captions raise the loss."""
    experiment = _with_model(ATTENDING)
    experiment = dataclasses.replace(
        experiment,
        optim=config.Optim(learning_rate=1e-2, warmup_steps=5, ema_decay=0.9),
        stage=dataclasses.replace(
            experiment.stage, diffusion=config.Diffusion(predicts="v"), text_drop_rate=0.0
        ),
    )
    module, rule, init = _setup(experiment)
    which = np.arange(32) % 2
    text = np.zeros((32, 24, 64), np.float32)
    text[:, 0, :] = np.where(which[:, None] == 0, 1.0, -1.0) * np.linspace(-1, 1, 64)
    batch = Batch(
        pixels=np.where(which[:, None, None, None] == 0, 230, 25).astype(np.uint8)
        * np.ones((1, 8, 8, 3), np.uint8),
        low_pixels=None,
        text=text,
        text_mask=np.arange(24)[None] < np.ones((32, 1)),
        index=np.arange(32, dtype=np.int32),
    )
    run, current = jax.jit(step.build(experiment, module, rule)), _drawn(init)
    # The same state and batch at another step meet other noise.
    _, first = run(current, batch, rng.root(0))
    _, later = run(current.replace(step=jnp.int32(1)), batch, rng.root(0))
    assert float(first["loss"]) != float(later["loss"])
    for _ in range(60):
        current, _ = run(current, batch, rng.root(0))
    swapped = batch._replace(text=text[::-1].copy())
    _, wrong = run(current, swapped, rng.root(0))
    _, right = run(current, batch, rng.root(0))
    assert float(wrong["loss"]) > 1.5 * float(right["loss"])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("tiny/base8", marks=pytest.mark.slow),
        pytest.param("tiny/sr16", marks=pytest.mark.slow),
        pytest.param(SMALL_SR, id="small"),
    ],
)
def test_micro_batches_average_over_their_rows(name: str) -> None:
    """Gradients of two micro-batches are the mean of those of their rows, even and odd ones."""
    experiment = config.load(name)[0]
    module, _, init = _setup(experiment)
    params = _drawn(init).params
    loss_of, batch, key = (
        step.loss_function(experiment.stage, module),
        make_batch(name),
        rng.root(3),
    )
    in_parts = jax.jit(lambda rows: step.gradients(loss_of, params, rows, key, parts=2))
    found, metrics = in_parts(batch)
    of_part = jax.jit(jax.grad(loss_of, has_aux=True))
    parts = [
        of_part(
            params, jax.tree.map(lambda x, k=k: x[k::2], batch), rng.fold(key, "micro_batch", k)
        )
        for k in range(2)
    ]
    for leaf, one, other in zip(
        *(jax.tree.leaves(g) for g in (found, parts[0][0], parts[1][0])), strict=True
    ):
        np.testing.assert_allclose(leaf, (one + other) / 2, rtol=1e-4, atol=1e-7)
    one, other = (m for _, m in parts)
    assert float(one["loss"]) != float(other["loss"])
    np.testing.assert_allclose(metrics["loss"], (one["loss"] + other["loss"]) / 2, rtol=1e-5)
    levels = [n for n in metrics if n.startswith("count/")]
    assert sum(float(metrics[n]) for n in levels) == len(batch.index)


def test_the_option_reaches_the_step() -> None:
    """A step of two micro-batches goes through them one after another."""
    experiment = _with_model(SMALL)
    module, rule, init = _setup(experiment)
    shapes, programs = jax.eval_shape(init, rng.root(0)), []
    for parts in (1, 2):
        train = dataclasses.replace(experiment.train, batch_size=8, micro_batches=parts)
        run = step.build(dataclasses.replace(experiment, train=train), module, rule)
        programs.append(str(jax.make_jaxpr(run)(shapes, make_batch("tiny/base8"), rng.root(0))))
    assert ["scan[" in text for text in programs] == [False, True]


@pytest.mark.parametrize(
    "kind",
    [
        "adafactor",
        pytest.param("adam", marks=pytest.mark.slow),
        pytest.param("muon", marks=pytest.mark.slow),
    ],
)
def test_an_update_that_is_not_finite_changes_nothing_but_the_number(kind: str) -> None:
    experiment = _with_model(SMALL)
    experiment = dataclasses.replace(
        experiment,
        optim=config.Optim(
            kind=kind,
            learning_rate=3e38,
            warmup_steps=0,
            schedule="constant",
            adafactor_param_scale=False,
        ),
    )
    module, rule, init = _setup(experiment)
    before = _drawn(init)
    after, metrics = jax.jit(step.build(experiment, module, rule))(
        before, make_batch("tiny/base8"), rng.root(0)
    )
    assert np.isfinite(metrics["loss"] + metrics["grad_norm"])
    assert float(metrics["skipped"]) == 1.0
    assert int(after.step) == 1
    jax.tree.map(np.testing.assert_array_equal, after.replace(step=before.step), before)


@pytest.mark.slow
def test_frozen_parameters_and_their_average_stay() -> None:
    """The others move as they would: here the head, which begins at zero, moves alone at first."""
    experiment = config.load("tiny/base8")[0]
    options = dataclasses.replace(
        experiment.optim, kind="adam", warmup_steps=0, learning_rate=1e-2, clip_norm=None
    )
    held = dataclasses.replace(options, frozen=("text/*", "down_*"))
    moved = {}
    for name, chosen in (("all", options), ("part", held)):
        wanted = dataclasses.replace(experiment, optim=chosen)
        module, rule, init = _setup(wanted)
        start = init(rng.root(0))
        start = start.replace(
            params=jax.tree.map(lambda p: p + 0.05, start.params),
            ema=jax.tree.map(lambda p: p + 0.1, start.params),
        )
        batch = make_batch("tiny/base8")
        after, _ = jax.jit(step.build(wanted, module, rule))(start, batch, rng.root(0))
        for part in ("params", "ema"):
            moved[name, part] = jax.tree.map(
                lambda a, b: a - b, getattr(after, part), getattr(start, part)
            )
    for part in ("params", "ema"):
        trained = optim.select_trained(moved["all", part], held.frozen)
        for trains, one, other in zip(
            *map(jax.tree.leaves, (trained, moved["all", part], moved["part", part])), strict=True
        ):
            np.testing.assert_allclose(other, one if trains else 0 * one, atol=1e-5)
        assert any(float(jnp.abs(x).max()) > 0 for x in jax.tree.leaves(moved["part", part]))
