"""Every option of a run: frozen dataclasses that validate themselves and import no jax.

`Experiment` trains one stage; a folder of experiments whose sizes chain is a cascade (`chain`).
Each file in `configs/` has `get_config() -> Experiment`; the command line overrides any field.

| file | holds |
|---|---|
| `models.py` | `UNet`, `EfficientUNet`, `Level`, `TextConditioning` |
| `deepfloyd.py` | `DeepFloydUNet`, `DeepFloydLevel` |
| `diffusion.py` | `Diffusion`, `NoiseSchedule`, `NoiseConditioning`, `Sampler` |
| `stage.py` | `Stage`: one diffusion model of the cascade |
| `experiment.py` | `Experiment` and its parts: `Data`, `Text`, `Train`, `Mesh` |
| `optim.py` | `Optim`: optimiser, learning rate, average, frozen parameters |
| `distillation.py` | `Distillation`, `Teacher`: a stage that few steps sample |
| `images.py` | `Framing`, `Filters`: how images of any size are cropped and chosen |
| `lora.py` | `Lora`: adapters that a run trains in place of all weights |
| `distributed.py` | `Processes`: how several of them find each other |
| `ranges.py` | which numbers a field may hold: `Range`, `Count`, `Seed`, ... |
| `sentences.py` | `shorten`, `abridge`, `check_texts`: which texts can be shown, and how |
| `digits.py` | numbers as they are typed |
| `names.py` | which names from files may become part of a path, an argument or a printed line |
| `decode.py` | parsed JSON to dataclasses, by name and type |
| `load.py` | reading config files, JSON beside a checkpoint, chaining stages |
"""

from imagen_jax.config.deepfloyd import Activation, Betas, DeepFloydLevel, DeepFloydUNet
from imagen_jax.config.diffusion import (
    Diffusion,
    LossWeight,
    NoiseConditioning,
    NoiseSchedule,
    Predicts,
    Sampler,
    SamplerKind,
    ScheduleKind,
    Spacing,
    Threshold,
    Upsampling,
)
from imagen_jax.config.distillation import Distillation, DistillationMethod, Teacher
from imagen_jax.config.distributed import Processes
from imagen_jax.config.experiment import (
    Data,
    EncoderDtype,
    Experiment,
    Layout,
    Mesh,
    Optim,
    Padding,
    Text,
    Train,
)
from imagen_jax.config.images import Crop, Filters, Framing
from imagen_jax.config.load import chain, from_json, load, to_json
from imagen_jax.config.lora import Lora
from imagen_jax.config.models import (
    Dtype,
    EfficientUNet,
    Level,
    Remat,
    ResidualScaling,
    TextConditioning,
    UNet,
)
from imagen_jax.config.ranges import (
    BatchSize,
    Count,
    Counts,
    Finite,
    Images,
    Length,
    Parallel,
    Pixels,
    Positive,
    Range,
    Seed,
    Share,
    Side,
    Sides,
    Steps,
    StepsOrNone,
    TeacherSteps,
    Whole,
    Workers,
    check_fields,
    check_options,
    check_value,
)
from imagen_jax.config.sentences import check_texts, join_values, shorten
from imagen_jax.config.stage import Stage
from imagen_jax.config.validate import require

__all__ = [
    "Activation",
    "BatchSize",
    "Betas",
    "Count",
    "Counts",
    "Crop",
    "Data",
    "DeepFloydLevel",
    "DeepFloydUNet",
    "Diffusion",
    "Distillation",
    "DistillationMethod",
    "Dtype",
    "EfficientUNet",
    "EncoderDtype",
    "Experiment",
    "Filters",
    "Finite",
    "Framing",
    "Images",
    "Layout",
    "Length",
    "Level",
    "Lora",
    "LossWeight",
    "Mesh",
    "NoiseConditioning",
    "NoiseSchedule",
    "Optim",
    "Padding",
    "Parallel",
    "Pixels",
    "Positive",
    "Predicts",
    "Processes",
    "Range",
    "Remat",
    "ResidualScaling",
    "Sampler",
    "SamplerKind",
    "ScheduleKind",
    "Seed",
    "Share",
    "Side",
    "Sides",
    "Spacing",
    "Stage",
    "Steps",
    "StepsOrNone",
    "Teacher",
    "TeacherSteps",
    "Text",
    "TextConditioning",
    "Threshold",
    "Train",
    "UNet",
    "Upsampling",
    "Whole",
    "Workers",
    "chain",
    "check_fields",
    "check_options",
    "check_texts",
    "check_value",
    "from_json",
    "join_values",
    "load",
    "require",
    "shorten",
    "to_json",
]
