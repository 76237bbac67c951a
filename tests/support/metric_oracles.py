"""Metrics as the field's own packages compute them: torch-fidelity, transformers, SciPy.

Each package is imported where it is called; they are in the extra `parity`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TEXTS = (
    "A red circle  isn't\ta SQUARE, 42 of them!!! they've",
    "日本語 🐈 café don’t ½ Ⅳ a_b-c e\u0301 'sup",
    "",
    "red red red red red red red red red red red red red red red red",
    "x<|endoftext|>y İ ǅ\u00a0z",
)


def features(seed: int, count: int = 60, width: int = 24) -> np.ndarray:
    """Features to compare, whose sets differ."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((width, width)) / 4
    return (rng.standard_normal((count, width)) @ root + 0.1 * seed + 0.5).astype(np.float32)


def inception(tensors: Mapping[str, np.ndarray], images: np.ndarray, *, divide: int) -> np.ndarray:
    """torch-fidelity's network, with so many times less channels than the published one."""
    import torch
    import torch_fidelity.feature_extractor_inceptionv3 as published

    class Narrow(torch.nn.Module):
        def __init__(self, inputs: int, outputs: int, **options: Any) -> None:
            super().__init__()
            inputs = inputs if inputs == 3 else inputs // divide
            self.conv = torch.nn.Conv2d(inputs, outputs // divide, bias=False, **options)
            self.bn = torch.nn.BatchNorm2d(outputs // divide, eps=0.001)

        def forward(self, x: Any) -> Any:
            return torch.relu(self.bn(self.conv(x)))

    class Loaded(published.FeatureExtractorInceptionV3):
        def load_state_dict(self, state: Any, **_: Any) -> Any:
            own = {name: torch.tensor(array) for name, array in tensors.items()}
            missing, unexpected = super().load_state_dict(own, strict=False)
            counts = {name for name in missing if name.endswith("num_batches_tracked")}
            assert set(missing) - counts == {"fc.weight", "fc.bias"}
            assert not unexpected

    basic, url = published.BasicConv2d, published.load_state_dict_from_url
    published.BasicConv2d = Narrow if divide > 1 else basic
    published.load_state_dict_from_url = lambda *_, **__: {}
    try:
        network = Loaded("inception", ["2048"])
    finally:
        published.BasicConv2d, published.load_state_dict_from_url = basic, url
    with torch.no_grad():
        return network(torch.tensor(images).permute(0, 3, 1, 2))[0].numpy()


def clip_ids(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """transformers' tokens."""
    import json

    from transformers import CLIPConfig, CLIPTokenizer

    vocabulary = json.loads((folder / "vocab.json").read_text())
    lines = (folder / "merges.txt").read_text().splitlines()
    merges = [tuple(line.split(" ")) for line in lines if not line.startswith("#version")]
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges)
    length = CLIPConfig.from_pretrained(folder).text_config.max_position_embeddings
    return tokenizer(
        list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="np"
    )["input_ids"]


def clip_pixels(folder: Path, images: np.ndarray) -> np.ndarray:
    """transformers' inputs, by Pillow. Shapes: (b, 3, side, side)."""
    from PIL import Image
    from transformers import CLIPConfig
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    side = CLIPConfig.from_pretrained(folder).vision_config.image_size
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    pictures = [Image.fromarray(image) for image in images]
    return processor(pictures, return_tensors="np")["pixel_values"]


def clip(folder: Path, pixels: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
    """transformers' embeddings, of length 1."""
    import torch
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():
        found = model(input_ids=torch.tensor(ids), pixel_values=torch.tensor(pixels))
    return {"image": found.image_embeds.numpy(), "text": found.text_embeds.numpy()}


def open_clip(
    name: str, tensors: Mapping[str, np.ndarray], images: np.ndarray, texts: Sequence[str]
) -> dict[str, np.ndarray]:
    """open_clip's embeddings and tokens, of tensors by Hugging Face's names."""
    import open_clip as published
    import torch

    model = published.create_model(name).eval()
    own = _open_clip_tensors(tensors)
    missing, unexpected = model.load_state_dict(own, strict=False)
    assert set(missing) <= {"logit_scale"}
    assert not unexpected
    ids = open_clip_ids(texts)
    mean, std = published.OPENAI_DATASET_MEAN, published.OPENAI_DATASET_STD
    pixels = ((images / 255 - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2)
    with torch.no_grad():
        image = model.encode_image(torch.tensor(pixels, dtype=torch.float32), normalize=True)
        text = model.encode_text(torch.tensor(ids), normalize=True)
    return {"image": image.numpy(), "text": text.numpy(), "ids": ids}


def open_clip_ids(texts: Sequence[str]) -> np.ndarray:
    """open_clip's tokens, padded with 0."""
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()(list(texts)).numpy()


def write_vocabulary(folder: Path) -> None:
    """The published vocabulary, which open_clip ships, as Hugging Face's two files."""
    import gzip
    import json

    from open_clip.tokenizer import SimpleTokenizer, default_bpe

    ends = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    pieces = {ends.get(piece, piece): n for piece, n in SimpleTokenizer().encoder.items()}
    with gzip.open(default_bpe()) as opened:
        lines = opened.read().decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    (folder / "vocab.json").write_text(json.dumps(pieces))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]))


def _open_clip_tensors(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """open_clip's names, query, key and value in one."""
    import torch

    whole = {
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    }
    parts = {
        "text_model.final_layer_norm": "ln_final",
        "vision_model.pre_layrnorm": "visual.ln_pre",
        "vision_model.post_layernorm": "visual.ln_post",
        "vision_model.encoder.layers.": "visual.transformer.resblocks.",
        "text_model.encoder.layers.": "transformer.resblocks.",
        ".layer_norm": ".ln_",
        ".mlp.fc1": ".mlp.c_fc",
        ".mlp.fc2": ".mlp.c_proj",
        ".self_attn.out_proj": ".attn.out_proj",
    }
    found = {
        "visual.proj": torch.tensor(tensors["visual_projection.weight"].T.copy()),
        "text_projection": torch.tensor(tensors["text_projection.weight"].T.copy()),
    }
    for name, array in tensors.items():
        if "_proj." in name and "out_proj" not in name:
            if ".q_proj." in name:
                three = [tensors[name.replace(".q_proj.", f".{k}_proj.")] for k in "qkv"]
                other = name.replace(".self_attn.q_proj.", ".attn.in_proj_")
                array = np.concatenate(three)
            else:
                continue
        elif name in ("visual_projection.weight", "text_projection.weight"):
            continue
        else:
            other = whole.get(name, name)
        for old, new in parts.items():
            other = other.replace(old, new)
        found[other] = torch.tensor(array)
    return found


def fid(first: np.ndarray, second: np.ndarray) -> float:
    """FID's formula in float64, with SciPy's root of a matrix."""
    from scipy.linalg import sqrtm

    one, other = first.astype(np.float64), second.astype(np.float64)
    left, right = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    shift = one.mean(axis=0) - other.mean(axis=0)
    root = np.real(sqrtm(left @ right))
    return float(shift @ shift + np.trace(left) + np.trace(right) - 2 * np.trace(root))


def precision_recall(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """torch-fidelity's, of images and reference."""
    import torch
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    return calculate_precision_recall_full(torch.tensor(first), torch.tensor(second), 3)


def cmmd(first: np.ndarray, second: np.ndarray) -> float:
    """The formula of CMMD's code, in float64 and without any care."""
    one, other = first.astype(np.float64), second.astype(np.float64)

    def mean(x: np.ndarray, y: np.ndarray) -> float:
        apart = np.square(x[:, None] - y[None]).sum(axis=-1)
        return float(np.exp(-apart / (2 * 10.0**2)).mean())

    return 1000 * (mean(one, one) + mean(other, other) - 2 * mean(one, other))
