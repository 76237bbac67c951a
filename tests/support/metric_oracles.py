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
