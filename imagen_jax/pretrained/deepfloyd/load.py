"""Folders of diffusers' DeepFloyd IF pipelines: to a cascade that samples as any other here."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imagen_jax import config, models
from imagen_jax.config.sentences import shorten
from imagen_jax.discrete_schedule import STEPS
from imagen_jax.imagen import Imagen
from imagen_jax.io import json_reader
from imagen_jax.io.workdir import Workdir
from imagen_jax.pretrained.deepfloyd import weights
from imagen_jax.pretrained.deepfloyd.scheduler_config import read_scheduler_config
from imagen_jax.pretrained.deepfloyd.unet_config import read_unet_config
from imagen_jax.pretrained.text_encoder import open_encoder
from imagen_jax.sample.lazy_params import LazyParams
from imagen_jax.sample.stage_program import TrainedStage
from imagen_jax.text.checkpoints.lazy_tensors import Layout

INDEX = "model_index.json"
CLASSES = ("IF", "Pipeline")  # how the names of DeepFloyd IF's pipelines begin and end
FACTOR = 4  # by which stage II enlarges
SIDE = 64  # of stage I's images where no file says another
NOISE_LEVEL = 250  # time step of the noise on stage II's low-resolution image
DATASET = "deepfloyd"  # what is said of it: it is no dataset of ours


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """One pipeline's folder: a stage, and its tensors, which are not read yet."""

    folder: Path
    stage: config.Stage
    text_width: int
    layout: Layout

    @property
    def has_text_encoder(self) -> bool:
        """Whether the folder has the text encoder, which the stages share."""
        return (self.folder / "text_encoder").is_dir()

    @property
    def text(self) -> config.Text:
        """The text encoder that the stage was trained with, in this folder if it is there."""
        place = self.folder / "text_encoder"
        return config.Text(
            encoder=str(place),
            width=self.text_width,
            max_length=weights.TOKENS,
            lower_case=True,
            padding="encoded",
        )

    def experiment(self, text: config.Text) -> config.Experiment:
        """The stage as a run has it, with its cascade's text encoder."""
        return config.Experiment(stage=self.stage, text=text, data=config.Data(dataset=DATASET))

    def in_dtype(self, dtype: config.Dtype) -> "Pipeline":
        """The same with a network that computes in this dtype."""
        model = dataclasses.replace(self.stage.model, dtype=dtype)
        return dataclasses.replace(self, stage=dataclasses.replace(self.stage, model=model))

    def lazy_params(self, *, keep: bool) -> LazyParams:
        """The weights of the network, to be read when they are needed."""
        return weights.lazy_params(self.layout, self.stage, keep=keep)


def find_pipelines(folder: Workdir) -> list[Path]:
    """The pipelines of DeepFloyd IF in a folder, which may be one itself; none for other folders.

    Errors: ValueError for an index that is no JSON, or of other pipelines.
    """
    if not isinstance(folder, Path):
        return []
    if (folder / INDEX).is_file():
        names = {folder: _class_name(folder)}
    else:
        places = sorted(place.parent for place in folder.glob(f"*/{INDEX}"))
        names = {place: _class_name(place) for place in places if not place.name.startswith(".")}
    found = [place for place, name in names.items() if _is_ours(name)]
    if names and not found:
        (place, name), *_ = names.items()
        raise ValueError(
            f"{place / INDEX} names the pipeline {shorten(name)}, and imagen_jax reads those of "
            f"DeepFloyd IF alone, {CLASSES[0]}...{CLASSES[1]}: give the folder of one, or download "
            "that file again"
        )
    return found


def _class_name(place: Path) -> object:
    return json_reader.read_object(place / INDEX, remedy="download it again").get("_class_name")


def _is_ours(name: object) -> bool:
    first, last = CLASSES
    return isinstance(name, str) and name.startswith(first) and name.endswith(last)


def load_pipelines(
    folders: Sequence[Path],
    *,
    text_encoder: str = "",
    dtype: config.Dtype | None = None,
    text_encoder_dtype: config.EncoderDtype | None = None,
    offload: bool = False,
) -> Imagen:
    """The cascade of one or two pipelines; weights are read when a stage first samples.

    With `dtype` bfloat16 they compute in it, and matrices are kept in it, too.
    Errors: FileNotFoundError or ValueError that names file, tensor or key, and the remedy.
    """
    pipelines = open_pipelines(folders)
    if dtype is not None:
        pipelines = [pipeline.in_dtype(dtype) for pipeline in pipelines]
    text = find_text(pipelines, given=text_encoder)
    if text is not None and text_encoder_dtype is not None:
        text = dataclasses.replace(text, dtype=text_encoder_dtype)
    return Imagen(
        stages=tuple(_trained(p, keep=not offload) for p in pipelines),
        encoder=open_encoder(
            text, pipelines[0].folder, padding=pipelines[0].text.padding, offload=offload
        ),
        experiments=tuple(p.experiment(text or p.text) for p in pipelines),
        steps=(0,) * len(pipelines),
    )


def find_text(pipelines: Sequence[Pipeline], *, given: str = "") -> config.Text | None:
    """The text encoder of a cascade: `given`, else the first that a folder has; None for none."""
    if given:
        return dataclasses.replace(pipelines[0].text, encoder=given)
    return next((p.text for p in pipelines if p.has_text_encoder), None)


def open_pipelines(folders: Sequence[Path]) -> list[Pipeline]:
    """The stages of pipelines in their order, whose tensors fit them; nothing large is read.

    Errors: ValueError for two of one stage; as `load_pipelines`.
    """
    found = [_describe(folder) for folder in folders]
    first = [folder for folder, low_res in zip(folders, found, strict=True) if not low_res]
    second = [folder for folder, low_res in zip(folders, found, strict=True) if low_res]
    for number, some in (("I", first), ("II", second)):
        if len(some) > 1:
            raise ValueError(f"{some[0]} and {some[1]} are both stage {number}: give one of them")
    pipelines = [_open_pipeline(folder, None) for folder in first]
    low_size = pipelines[0].stage.size if pipelines else None
    return pipelines + [_open_pipeline(folder, low_size) for folder in second]


def _describe(folder: Path) -> bool:
    """Tell whether a pipeline enlarges."""
    return read_unet_config(folder / "unet").model.reads_low_res


def _open_pipeline(folder: Path, low_size: int | None) -> Pipeline:
    scheduler = read_scheduler_config(folder / "scheduler")
    unet = read_unet_config(folder / "unet", betas=scheduler.betas)
    if scheduler.learned_variance and not unet.model.learned_variance:
        raise ValueError(
            f"{folder}: the scheduler's variance_type is learned_range, but out_channels of the "
            "network is 3, without a variance: download both files again"
        )
    schedule = config.NoiseSchedule(kind=f"{scheduler.betas}_betas")  # type: ignore[arg-type]
    second = unet.model.reads_low_res
    side = unet.side or (FACTOR * SIDE if second else SIDE)
    low = (low_size or side // FACTOR) if second else None
    stage = config.Stage(
        name="deepfloyd_2" if second else "deepfloyd_1",
        size=low * FACTOR if low else side,
        low_size=low,
        model=unet.model,
        diffusion=config.Diffusion(
            schedule=schedule,
            predicts=scheduler.predicts,
            variance="learned_range" if scheduler.learned_variance else "fixed",
        ),
        noise_conditioning=config.NoiseConditioning(
            schedule=schedule, sample_level=NOISE_LEVEL / (STEPS - 1), upsampling="align_corners"
        ),
        sampler=config.Sampler(
            steps=50 if second else 100,
            spacing="leading",
            stochasticity=scheduler.stochasticity,
            guidance_weight=4.0 if second else 7.0,
            threshold=scheduler.threshold,
            percentile=scheduler.percentile,
            threshold_max=scheduler.threshold_max,
            final_noise=True,
            known_pixels="clean",
        ),
    )
    layout = weights.find_layout(folder / "unet", stage, text_width=unet.text_width)
    return Pipeline(folder=folder, stage=stage, text_width=unet.text_width, layout=layout)


def find_pipeline(folders: Sequence[Path], *, enlarges: bool) -> Pipeline | None:
    """The pipeline of stage I, or of the one that enlarges; None for none.

    Errors: as `open_pipelines`.
    """
    found = open_pipelines(folders)
    return next((p for p in found if p.stage.is_super_resolution == enlarges), None)


def _trained(pipeline: Pipeline, *, keep: bool) -> TrainedStage:
    module, params = models.build(pipeline.stage.model), pipeline.lazy_params(keep=keep)
    return TrainedStage(stage=pipeline.stage, module=module, params=params)
