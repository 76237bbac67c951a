"""What is exported for other JAX code and for TensorFlow, read by what they have themselves."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

import imagen_jax
from imagen_jax.cli import export as command
from imagen_jax.export import saved_model
from imagen_jax.sample import cascade

HAS_TENSORFLOW = bool(
    importlib.util.find_spec("tensorflow") and importlib.util.find_spec("orbax.export")
)
PROMPTS = ["a large red circle", "", "a small blue square on a white background"]


def test_other_jax_code_reads_the_weights(
    random_bundle: Path, loaded: imagen_jax.Imagen, tmp_path: Path
) -> None:
    out = tmp_path / "orbax"
    command.run([str(random_bundle), "--form", "orbax", "--out", str(out)])
    assert sorted(p.name for p in out.iterdir()) == ["base8", "sr16"]
    for painter in loaded.stages:
        with ocp.StandardCheckpointer() as reader:
            params = reader.restore(out / painter.stage.name / "params")
        assert {type(x) for x in jax.tree.leaves(params)} == {np.ndarray}
        jax.tree.map(np.testing.assert_array_equal, params, painter.device_params())
    with pytest.raises(FileExistsError, match="orbax exists"):
        command.run([str(random_bundle), "--form", "orbax", "--out", str(out)])


@pytest.mark.parametrize(
    "options",
    [
        ("--form", "orbax", "--weights-only"),
        ("--form", "orbax", "--text", "none"),
        ("--form", "saved_model", "--no-programs"),
        ("--weights-only", "--text", "none"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options: tuple[str, ...], capsys) -> None:
    with pytest.raises(SystemExit):
        command.run(["nowhere", "--out", "o", *options])
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())  # in a box, wrapped
    assert "leave out --" in said


@pytest.mark.skipif(HAS_TENSORFLOW, reason="TensorFlow is here")
def test_without_tensorflow_a_saved_model_is_refused(random_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pip install 'imagen_jax\[tensorflow\]'"):
        command.run([str(random_bundle), "--form", "saved_model", "--out", str(tmp_path / "o")])


@pytest.mark.skipif(not HAS_TENSORFLOW, reason="needs imagen_jax[tensorflow]")
@pytest.mark.filterwarnings("ignore")  # TensorFlow's own
def test_tensorflow_paints_the_same(
    random_bundle: Path, loaded: imagen_jax.Imagen, tmp_path: Path
) -> None:
    import tensorflow as tf

    saved_model.write(tmp_path / "saved", random_bundle)
    prompts = loaded.encode(PROMPTS)
    expected = cascade.generate(loaded.stages, prompts, seed=5, batch_size=3)
    given = {
        "text": prompts.captions.text,
        "text_mask": prompts.captions.text_mask,
        "seed": np.uint32(5),
        "index": np.arange(3, dtype=np.int32),
        "steps": np.int32(3),
    }
    for name, weight in (("base8", 3.0), ("sr16", 2.0)):
        model = tf.saved_model.load(str(tmp_path / "saved" / name))
        paint = model.signatures[saved_model.SIGNATURE]
        given["guidance_weight"] = np.float32(weight)
        (found,) = paint(**{k: tf.constant(v) for k, v in given.items()}).values()
        np.testing.assert_allclose(found.numpy(), expected[name], atol=1e-4)
        given |= {"low_res": found.numpy(), "aug_level": np.float32(0.1)}
    assert (tmp_path / "saved" / "text" / "saved_model.pb").is_file()
