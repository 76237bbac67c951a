"""The programs in a bundle paint what the package paints, of any batch, for three platforms."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import sentencepiece
from jax import export as serialised
from safetensors.numpy import load_file

import imagen_jax
from imagen_jax import config
from imagen_jax.export import stablehlo, text_encoder
from imagen_jax.sample import cascade
from imagen_jax.text.encoder import TextEncoder

PROMPTS = ["a large red circle", "", "a small blue square on a white background"]
SEED = 5


@pytest.fixture(scope="module")
def manifest(random_bundle: Path) -> dict:
    return json.loads((random_bundle / "manifest.json").read_text())


def _program(file: Path) -> serialised.Exported:
    return serialised.deserialize(bytearray(file.read_bytes()))


@pytest.fixture(scope="module")
def encoded(random_bundle: Path, manifest: dict) -> tuple[np.ndarray, np.ndarray]:
    """Text and mask of eight prompts, without the package."""
    words = sentencepiece.SentencePieceProcessor(
        model_file=str(random_bundle / "text/spiece.model")
    )
    length = manifest["text"]["max_length"]
    ids = [[*words.encode(PROMPTS[i % 3])[: length - 1], words.eos_id()] for i in range(8)]
    tokens = np.array([row + [0] * (length - len(row)) for row in ids], np.int32)
    mask = np.arange(length) < np.array([[len(row)] for row in ids])
    tensors = load_file(random_bundle / "text/weights-00001-of-00001.safetensors")
    encode = _program(random_bundle / "text/encode.stablehlo")
    return np.asarray(encode.call(tensors, {"tokens": tokens, "text_mask": mask})), mask


@pytest.fixture(scope="module")
def stages(random_bundle: Path) -> dict:
    """Each stage's program, jitted, and its tensors."""
    return {
        name: (
            jax.jit(_program(random_bundle / name / "sample.stablehlo").call),
            load_file(random_bundle / name / "weights.safetensors"),
        )
        for name in ("base8", "sr16")
    }


@pytest.fixture(scope="module")
def painted(loaded: imagen_jax.Imagen) -> dict[str, np.ndarray]:
    """Float pictures of eight prompts by the package."""
    prompts = loaded.encode([PROMPTS[i % 3] for i in range(8)])
    return cascade.generate(loaded.stages, prompts, seed=SEED, batch_size=8)


def _given(encoded, rows: slice, **more) -> dict:
    text, mask = (x[rows] for x in encoded)
    index = np.arange(8, dtype=np.int32)[rows]
    return {
        "text": text,
        "text_mask": mask,
        "seed": np.uint32(SEED),
        "index": index,
        "steps": np.int32(3),
        "guidance_weight": np.float32(2.0),
        **more,
    }


def test_the_artefacts_are_for_three_platforms(random_bundle: Path, manifest: dict) -> None:
    for name, facts in manifest["stages"].items():
        program = _program(random_bundle / name / facts["program"]["file"])
        assert program.platforms == ("cpu", "cuda", "tpu")
        assert facts["program"]["platforms"] == ["cpu", "cuda", "tpu"]
        assert program.out_avals[0].str_short() == facts["program"]["result"]
    assert facts["program"]["arguments"]["low_res"] == "float32[b,8,8,3]"
    assert _program(random_bundle / "text/encode.stablehlo").platforms == ("cpu", "cuda", "tpu")


def test_the_encoder_encodes_as_the_package(encoded, loaded: imagen_jax.Imagen) -> None:
    expected = loaded.encode([PROMPTS[i % 3] for i in range(8)]).captions
    np.testing.assert_array_equal(encoded[1], expected.text_mask)
    np.testing.assert_allclose(encoded[0], expected.text, atol=1e-5)
    assert np.abs(expected.text).max() > 0.1


def test_a_rounded_encoder_encodes_what_it_would_have(tmp_path: Path) -> None:
    """Matrices are stored in the dtype that they are multiplied in: not a bit changes."""
    text = config.Text(dtype="bfloat16", max_length=8)
    text_encoder.embed_encoder(tmp_path / "text", text)
    program = stablehlo.export_encoding(tmp_path / "text", text)
    tensors = load_file(tmp_path / "text/weights-00001-of-00001.safetensors")
    assert {str(x.dtype) for x in tensors.values()} == {"bfloat16", "float32"}
    before = TextEncoder.from_config(text)
    after = TextEncoder.from_config(dataclasses.replace(text, encoder=str(tmp_path / "text")))
    expected, mask = before.encode(PROMPTS[:1])
    np.testing.assert_array_equal(after.encode(PROMPTS[:1])[0], expected)
    tokens, _ = before.tokenizer.tokenize(PROMPTS[:1], max_length=8)
    found = np.asarray(program.call(tensors, {"tokens": tokens, "text_mask": mask}))
    np.testing.assert_allclose(found, expected, atol=2e-2)  # of bfloat16, fused otherwise


@pytest.mark.parametrize("size", [1, pytest.param(3, marks=pytest.mark.slow), 8])
def test_any_batch_is_the_package_s(size: int, encoded, stages, painted) -> None:
    """Rows from the end, so that an index that is not used would show."""
    rows = slice(8 - size, 8)
    for name, more in (
        ("base8", {"guidance_weight": np.float32(3.0)}),
        ("sr16", {"low_res": painted["base8"][rows], "aug_level": np.float32(0.1)}),
    ):
        program, tensors = stages[name]
        found = program(tensors, _given(encoded, rows, **more))
        np.testing.assert_allclose(found, painted[name][rows], atol=1e-5)
        assert painted[name].std() > 0.1


def test_dials_turn_without_a_new_program(encoded, stages, loaded, painted) -> None:
    rows = slice(0, 1)
    turned = {"guidance_weight": 1.0, "aug_level": 0.5, "steps": 2}
    other = loaded.with_sampler(turned)
    expected = cascade.generate(other.stages, other.encode(PROMPTS[:1]), seed=SEED, batch_size=1)
    more: dict = {"guidance_weight": np.float32(1.0), "steps": np.int32(2)}
    for name, program, tensors in ((name, *stages[name]) for name in ("base8", "sr16")):
        found = np.asarray(program(tensors, _given(encoded, rows, **more)))
        np.testing.assert_allclose(found, expected[name], atol=1e-5)
        assert np.abs(found - painted[name][rows]).max() > 1e-2
        if name == "base8":
            more |= {"low_res": found, "aug_level": np.float32(0.5)}
    for dial in (
        {"guidance_weight": np.float32(3.0)},
        {"steps": np.int32(3)},
        {"aug_level": np.float32(0.0)},
    ):
        moved = program(tensors, _given(encoded, rows, **(more | dial)))
        assert np.abs(moved - found).max() > 1e-2, dial


TPU = """
import sys
from imagen_jax.plan import topology
topology.use_compiler()
import jax, numpy as np
from jax import export
from jax.sharding import Mesh, NamedSharding, PartitionSpec
slice_ = topology.describe_topology("v5e:1x1")
whole = NamedSharding(Mesh(np.array(slice_.devices), ("x",)), PartitionSpec())
for name in sys.argv[1:]:
    program = export.deserialize(bytearray(open(name, "rb").read()))
    one = lambda x: jax.ShapeDtypeStruct(tuple(d if isinstance(d, int) else 4 for d in x.shape),
                                         x.dtype, sharding=whole)
    (tensors, given), _ = program.in_tree.unflatten([one(x) for x in program.in_avals])
    compiled = jax.jit(program.call).lower(tensors, given).compile(
        compiler_options={"optimization_level": 9}  # O0, for minutes less
    )
    print(compiled.memory_analysis().temp_size_in_bytes)
"""


@pytest.mark.slow
def test_the_tpu_programs_compile_for_a_v5e(random_bundle: Path) -> None:
    files = [str(file) for file in sorted(random_bundle.rglob("*.stablehlo"))]
    assert len(files) == 3
    done = subprocess.run([sys.executable, "-c", TPU, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.split()) == 3
