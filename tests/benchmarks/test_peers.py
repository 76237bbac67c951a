"""The comparison with other projects, as far as it goes without them."""

import sys

import jax
import jax.numpy as jnp
import pytest

from imagen_jax import models
from imagen_jax.parallel import flops

SMALL = {
    "size": 16,
    "batch": 1,
    "channels": 64,
    "channel_mult": (1,),
    "res_blocks": 1,
    "text_length": 4,
    "text_width": 16,
    "steps": 2,
}


@pytest.mark.slow
def test_our_side_samples_images_of_the_shapes() -> None:
    import _peer_ours
    from _peer_shapes import Shapes

    shapes = Shapes(**SMALL, attention_at=(16,))
    experiment = _peer_ours.configured(shapes)
    stage, text = experiment.stage, experiment.text
    work = _peer_ours.sampling(shapes)
    assert work.call().shape == (1, 16, 16, 3)
    assert work.parameters == models.count_parameters(models.parameter_shapes(stage, text))
    # A step is two passes of the network and a share of what is done once an image.
    once = flops.count_flops(
        lambda params, z, logsnr, cond: models.build(stage.model).apply(
            {"params": params}, z, logsnr, cond
        ),
        *_arguments(stage, text),
    )
    assert 2 * once < work.forward < 3 * once


def _arguments(stage, text):
    """Shapes of one image for the network alone."""
    module, params = models.build(stage.model), models.parameter_shapes(stage, text)
    given = (1, text.max_length, text.width), (1, text.max_length), (1,)
    dtypes = jnp.float32, jnp.bool_, jnp.bool_
    prompt = [jax.ShapeDtypeStruct(*pair) for pair in zip(given, dtypes, strict=True)]
    cond = jax.eval_shape(
        lambda params, *prompt: module.apply({"params": params}, *prompt, method="encode_text"),
        params,
        *prompt,
    )
    z = jax.ShapeDtypeStruct((1, stage.size, stage.size, 3), jnp.float32)
    return params, z, jax.ShapeDtypeStruct((1,), jnp.float32), cond


def test_every_case_has_a_network_of_its_shapes() -> None:
    import _peer_ours
    import _peer_shapes

    kinds = {
        name: (type(model).__name__, experiment.stage.factor)
        for name, shapes in _peer_shapes.CASES.items()
        for experiment in [_peer_ours.configured(shapes)]
        for model in [experiment.stage.model]
    }
    assert set(kinds.values()) == {("UNet", 1), ("UNet", 4), ("EfficientUNet", 4)}


def test_sides_take_turns_in_processes_of_their_own() -> None:
    import _peer_turns
    from _peer_shapes import Shapes
    from _peer_turns import Side

    sides = [
        Side("product", "_peer_bare", "product"),
        Side("nobody", "peer_stand_in", "missing"),
    ]
    product, sentence = _peer_turns.measure(sides, Shapes(), repeats=2)
    assert product.flops == 2 * 1024**3
    assert 0 < product.cpu_seconds < 60
    assert product.peak_bytes > 2**20
    assert sentence == "nobody is not installed: pip install nobody"


def test_a_side_that_dies_is_named() -> None:
    import _peer_turns
    from _peer_shapes import Shapes
    from _peer_turns import Side

    with pytest.raises(RuntimeError, match="the broken one ended early"):
        _peer_turns.measure([Side("the broken one", "no_such_module", "f")], Shapes(), repeats=1)


def test_the_table_compares_with_ours() -> None:
    import peers
    from _peer_turns import Row

    ours = Row("ours", 2_000_000, 1e9, 12e9, 0.5, 0.25, 2**30)
    theirs = Row("theirs", 3_000_000, 5e8, 6e9, 0.75, 0.4, 2**29)
    bare = Row("a product", 0, 0.0, 2e9, 0.02, 0.02)
    lines = peers.table([ours, theirs, bare]).splitlines()
    assert lines[2] == "| ours | 2.00 M | 1.0 | 0.5 | 0.25 | 1.00 GiB | 24 | - |"
    assert lines[3] == "| theirs | 3.00 M | 0.5 | 0.75 | 0.4 | 0.50 GiB | 8 | 3.00 x |"
    assert lines[4] == "| a product | - | - | 0.02 | 0.02 | - | 100 | 0.24 x |"


@pytest.mark.parametrize(
    ("package", "module", "remedy"),
    [
        ("torch", "_peer_pytorch", r"pip install 'imagen_jax\[peer\]'"),
        ("dew", "_peer_dew", "Python 3.12 or later and `pip install dewml`"),
    ],
)
def test_without_a_peer_one_sentence_says_how_to_install_it(
    package, module, remedy, monkeypatch
) -> None:
    import importlib

    from _peer_shapes import Missing, Shapes

    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Missing, match=remedy):
        importlib.import_module(module).training(Shapes())


def test_nothing_to_measure_is_refused(monkeypatch) -> None:
    import step_time

    monkeypatch.setattr(sys, "argv", ["step_time.py"])
    with pytest.raises(SystemExit, match="give a config, such as quickstart/base16"):
        step_time.main()


def test_the_old_option_names_the_command(monkeypatch) -> None:
    import step_time

    monkeypatch.setattr(sys, "argv", ["step_time.py", "--peer"])
    with pytest.raises(SystemExit, match=r"python benchmarks/peers\.py"):
        step_time.main()
