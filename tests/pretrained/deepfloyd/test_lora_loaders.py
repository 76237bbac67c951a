"""Files of adapters between here and diffusers' and PEFT's own loaders: the extra `diffusers`.

Both networks get the same weights, inputs and adapters, in float32; the error is the largest
difference by the largest number.
"""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from deepfloyd_references import FOLDER, read_reference, relative_error

import imagen_jax
from imagen_jax import config, lora, models, rng
from imagen_jax.imagen import Imagen
from imagen_jax.pretrained.lora import is_convolution, module_names, with_lora
from imagen_jax.sample.noise_prediction import LowRes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
peft = pytest.importorskip("peft")

LIMIT = 1e-5
STAGES = {"if_I": "unet_I", "if_II": "unet_II"}  # folders, and what they were given
ATTENTION = ["to_k", "to_q", "to_v", "to_out.0", "add_k_proj", "add_v_proj"]  # of the script


@pytest.fixture(autouse=True)
def _exact_products() -> Iterator[None]:
    with jax.default_matmul_precision("highest"):
        yield


def open_ours(part: str) -> Imagen:
    return imagen_jax.load(FOLDER / part, offload=True)


def open_theirs(part: str) -> Any:
    unet = diffusers.UNet2DConditionModel.from_pretrained(
        FOLDER / part / "unet",
        torch_dtype=torch.float32,
        variant="fp16" if part == "if_I" else None,
    )
    return unet.eval()


def as_pipeline(part: str, unet: Any) -> Any:
    """What users load adapters into, without the parts that have none."""
    nothing = dict.fromkeys(
        ("tokenizer", "text_encoder", "safety_checker", "feature_extractor", "watermarker")
    )
    schedule = diffusers.DDPMScheduler.from_pretrained(FOLDER / part / "scheduler")
    if part == "if_I":
        return diffusers.IFPipeline(
            unet=unet, scheduler=schedule, requires_safety_checker=False, **nothing
        )
    noising = diffusers.DDPMScheduler.from_pretrained(FOLDER / part / "image_noising_scheduler")
    return diffusers.IFSuperResolutionPipeline(
        unet=unet,
        scheduler=schedule,
        image_noising_scheduler=noising,
        requires_safety_checker=False,
        **nothing,
    )


def predict_ours(cascade: Imagen, part: str) -> np.ndarray:
    found = _predictor(part)(cascade.stages[0].device_params())
    return np.asarray(jnp.concatenate([found.eps, found.variance], axis=-1))


@functools.cache
def _predictor(part: str) -> Callable[[Any], Any]:
    """The reference's prediction as a function of parameters, compiled once."""
    given, low_res = read_reference(STAGES[part]), None
    sample, trained = given["sample"], open_ours(part).stages[0]
    if part == "if_II":
        sample, seen = np.split(sample, 2, axis=-1)
        low_res = LowRes(seen, given["class_labels"])
    text = jnp.asarray(given["encoder_hidden_states"])
    return jax.jit(
        lambda params: trained.predict(
            params, jnp.asarray(sample), given["timestep"], text, low_res=low_res
        )
    )


def predict_theirs(unet: Any, part: str) -> np.ndarray:
    given = read_reference(STAGES[part])
    more = {}
    if part == "if_II":
        more["class_labels"] = torch.tensor(np.asarray(given["class_labels"]))
    with torch.no_grad():
        found = unet(
            torch.tensor(given["sample"].transpose(0, 3, 1, 2).copy()),
            torch.tensor(np.asarray(given["timestep"])),
            encoder_hidden_states=torch.tensor(given["encoder_hidden_states"]),
            **more,
        ).sample
    return found.numpy().transpose(0, 2, 3, 1)


def count_projections(unet: Any) -> int:
    """Their layers that adapters of attention change."""
    names = [name for name, _ in unet.named_modules()]
    return sum(name.endswith(tuple(f".{end}" for end in ATTENTION)) for name in names)


def count_layers(unet: Any) -> int:
    """Their layers whose adapters change anything."""
    layers = [m for m in unet.modules() if isinstance(m, peft.tuners.lora.LoraLayer)]
    return sum(all(bool(b.weight.detach().any()) for b in x.lora_B.values()) for x in layers)


@pytest.mark.parametrize("targets", [("attention",), ("all",)])
@pytest.mark.parametrize("part", STAGES)
def test_files_written_here_are_loaded_there_whole(
    part: str, targets: tuple[str, ...], tmp_path: Path
) -> None:
    cascade, unet = open_ours(part), open_theirs(part)
    projections = count_projections(unet)
    before = relative_error(predict_ours(cascade, part), predict_theirs(unet, part))
    trained, text = cascade.stages[0], cascade.experiments[0].text
    options = config.Lora(rank=4, alpha=8.0, targets=targets)
    shapes = jax.tree.map(
        lambda x: np.zeros(x.shape, np.float32), models.parameter_shapes(trained.stage, text)
    )
    adapters = _not_zero(lora.init(shapes, options, rng.root(0)), options)
    file = tmp_path / "pytorch_lora_weights.safetensors"
    lora.write_adapters(
        file,
        adapters,
        modules=module_names(trained.stage, text),
        as_convolution=functools.partial(is_convolution, trained.stage),
    )
    as_pipeline(part, unet).load_lora_weights(tmp_path, weight_name=file.name)
    assert count_layers(unet) == len(adapters.modules()) >= projections >= 24
    assert targets == ("all",) or len(adapters.modules()) == projections
    found = predict_ours(with_lora(cascade, file), part)
    assert relative_error(found, predict_ours(cascade, part)) > 0.1
    error = relative_error(found, predict_theirs(unet, part))
    count = len(adapters.modules())
    print(f"{part}, {targets}: {count} layers, {error:.1e}, and {before:.1e} without")
    assert error < LIMIT


def _not_zero(fresh: lora.Adapters, options: config.Lora) -> lora.Adapters:
    draw = np.random.default_rng(0)
    weights = jax.tree.map(
        lambda x: (0.1 * draw.standard_normal(x.shape)).astype(np.float32), fresh.weights
    )
    return lora.from_weights(weights, options.scale)


def add_theirs(unet: Any) -> Any:
    """Adapters by PEFT, as the training script adds them, and none of them zero."""
    options = peft.LoraConfig(
        r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=ATTENTION
    )
    unet.add_adapter(options)
    _disturb(unet)
    return unet


def _disturb(network: Any) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for name, matrix in network.named_parameters():
            if "lora_" in name:
                matrix.copy_(0.1 * torch.randn_like(matrix))


def save_uniform(unet: Any, folder: Path) -> Path:
    """As pipelines save them today."""
    diffusers.IFPipeline.save_lora_weights(
        folder, unet_lora_layers=peft.get_peft_model_state_dict(unet)
    )
    return folder / "pytorch_lora_weights.safetensors"


def save_mixed(unet: Any, folder: Path) -> Path:
    """As examples/dreambooth/train_dreambooth_lora.py saves them."""
    named = diffusers.utils.convert_state_dict_to_diffusers(peft.get_peft_model_state_dict(unet))
    diffusers.IFPipeline.save_lora_weights(folder, unet_lora_layers=named)
    return folder / "pytorch_lora_weights.safetensors"


def save_kohya(unet: Any, folder: Path) -> Path:
    """As diffusers converts them for other programs."""
    from safetensors.torch import save_file

    named = peft.get_peft_model_state_dict(unet)
    kohya = diffusers.utils.convert_state_dict_to_kohya(
        {f"unet.{name}": x for name, x in named.items()}
    )
    file = folder / "kohya.safetensors"
    save_file({name: x.contiguous() for name, x in kohya.items()}, file)
    return file


@pytest.mark.parametrize("save", [save_uniform, save_mixed, save_kohya])
@pytest.mark.parametrize("part", STAGES)
def test_files_written_there_are_read_here_whole(
    part: str, save: Callable[[Any, Path], Path], tmp_path: Path
) -> None:
    unet = open_theirs(part)
    count = count_projections(unet)
    file = save(add_theirs(unet), tmp_path)
    _check_read(unet, file, part, count)


@pytest.mark.parametrize("part", STAGES)
def test_pefts_folders_are_read_here_whole(part: str, tmp_path: Path) -> None:
    options = peft.LoraConfig(
        r=4, lora_alpha=10, target_modules=ATTENTION, alpha_pattern={"to_q": 3}
    )
    unet = open_theirs(part)
    count = count_projections(unet)
    model = peft.get_peft_model(unet, options)
    _disturb(model)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["lora_alpha"] == 10
    _check_read(model, tmp_path, part, count)


def _check_read(theirs: Any, path: Path, part: str, count: int) -> None:
    cascade = open_ours(part)
    modules = module_names(cascade.stages[0].stage, cascade.experiments[0].text)
    assert len(lora.read_adapters(path, modules).modules()) == count >= 24
    found = predict_ours(with_lora(cascade, path), part)
    assert relative_error(found, predict_ours(cascade, part)) > 0.1
    error = relative_error(found, predict_theirs(theirs, part))
    print(f"{part}, {path.name}: {count} layers, {error:.1e}")
    assert error < LIMIT
