"""Relative paths of a config, made absolute: a run can be sampled from any folder."""

import dataclasses
import os

from imagen_jax import config


def resolve_text(experiment: config.Experiment) -> config.Experiment:
    """The experiment with the absolute paths of a text encoder and a tokenizer that are here.

    Names of embedded encoders, addresses of buckets, and what is not here stay as they are.
    """
    from imagen_jax.text import encoder_folders

    text = experiment.text
    changes = {
        field: os.path.abspath(value)
        for field in ("encoder", "tokenizer")
        if (value := getattr(text, field)) and os.path.exists(value)
        if field != "encoder" or value not in encoder_folders.EMBEDDED
    }
    return dataclasses.replace(experiment, text=dataclasses.replace(text, **changes))
