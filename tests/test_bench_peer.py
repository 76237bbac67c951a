"""The comparison with a PyTorch Imagen, as far as it goes without PyTorch."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from imagen_jax import flops, models

LAUNCH = Path(__file__).parent.parent / "launch"


@pytest.fixture
def peer(monkeypatch):
    monkeypatch.syspath_prepend(str(LAUNCH))
    import peer

    return peer


def test_our_side_samples_pictures_of_the_shapes(peer) -> None:
    shapes = peer.Shapes(
        size=16,
        batch=2,
        channels=16,
        channel_mult=(1, 4),
        res_blocks=(1, 2),
        attention_at=(8,),
        text_length=4,
        text_width=16,
        steps=2,
    )
    stage, text = peer.our_config(shapes)
    side = peer.ours(shapes)
    assert side.call().shape == (2, 16, 16, 3)
    assert side.parameters == models.count(models.shapes(stage, text))
    # A step is two passes of the network and a share of what is done once a picture.
    once = flops.of(
        lambda params, z, logsnr, cond: models.build(stage.model).apply(
            {"params": params}, z, logsnr, cond
        ),
        *_arguments(stage, text),
    )
    assert 2 * once < side.flops < 2.5 * once


def _arguments(stage, text):
    """Shapes of one picture for the network alone."""
    module, params = models.build(stage.model), models.shapes(stage, text)
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


def test_the_table_compares_with_ours(peer) -> None:
    ours = peer.Side("ours", 2_000_000, 4e9, lambda: None)
    theirs = peer.Side("theirs", 3_000_000, 2e9, lambda: None)
    lines = peer.table([peer.Row(ours, 0.5, 4), peer.Row(theirs, 0.75, 4)]).splitlines()
    assert lines[2] == "| ours | 2.00 M | 4.0 | 500 ms | 32 GFLOP/s | - | - |"
    assert lines[3] == "| theirs | 3.00 M | 2.0 | 750 ms | 11 GFLOP/s | 1.50 x | 3.00 x |"


def test_without_the_peer_one_sentence_says_how_to_install_it(peer, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit, match=r"pip install 'imagen_jax\[peer\]'"):
        peer.load()


def test_nothing_to_measure_is_refused(peer, monkeypatch) -> None:
    import bench

    monkeypatch.setattr(sys, "argv", ["bench.py"])
    with pytest.raises(SystemExit, match="give a config, such as quickstart/base16, or --peer"):
        bench.main()
