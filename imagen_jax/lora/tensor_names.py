"""Spellings of an adapter's tensors: of PEFT, of diffusers today and before, of kohya's scripts.

| spelling | example |
|---|---|
| uniform, of diffusers and here | `unet.mid_block.attentions.0.to_q.lora_A.weight` |
| PEFT | `base_model.model.mid_block.attentions.0.to_q.lora_A.weight` |
| diffusers before PEFT | `unet.mid_block.attentions.0.to_q.lora.down.weight` |
| its attention processors | `unet.mid_block.attentions.0.processor.to_q_lora.down.weight` |
| kohya | `lora_unet_mid_block_attentions_0_to_q.lora_down.weight`, `....alpha` |

DeepFloyd's training script of diffusers mixes the first and the third in one file.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from imagen_jax.lora.adapters import DOWN, UP

ALPHA = "alpha"  # of one module, a scalar
PREFIXES = ("unet.", "base_model.model.", "lora_unet_")
_ENDS = {"lora_A": DOWN, "lora_B": UP, "down": DOWN, "up": UP}
_SUFFIX = re.compile(
    r"(?P<module>.+?)(?:\.(?P<peft>lora_A|lora_B)(?:\.default)?|"
    r"\.lora(?:_linear_layer)?[._](?P<old>down|up)|"
    r"_lora\.(?P<processor>down|up))\.weight"
)


class TensorPlace(NamedTuple):
    """One tensor's place: the file's name of a module, and which tensor of it this is."""

    module: str
    which: str  # "lora_A", "lora_B" or "alpha"


def parse_name(name: str) -> TensorPlace | None:
    """Parse a tensor's name; None for one of no known spelling."""
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    if name.endswith(f".{ALPHA}"):
        return TensorPlace(name.removesuffix(f".{ALPHA}"), ALPHA)
    if (found := _SUFFIX.fullmatch(name)) is None:
        return None
    which = found["peft"] or found["old"] or found["processor"]
    module = found["module"]
    if found["processor"]:  # `....processor.to_out` is of the layer `....to_out.0`
        module = re.sub(r"\.to_out$", ".to_out.0", module.replace(".processor.", "."))
    return TensorPlace(module, _ENDS[which])


def spellings(modules: Iterable[str]) -> Mapping[str, str]:
    """Return each module by every way to write it: with dots, and as kohya does."""
    found = {}
    for module in modules:
        found[module] = found[module.replace(".", "_")] = module
    return found


def uniform_name(module: str, which: str) -> str:
    """Return the name of a tensor that diffusers and PEFT load whole."""
    return f"unet.{module}.{which}.weight"
