"""Packages that only some uses need, and the command that installs each."""

import importlib.util

# module -> name of the package for people, and the extra of setup.py that installs it
EXTRAS = {
    "bs4": ("beautifulsoup4", "deepfloyd"),
    "ftfy": ("ftfy", "deepfloyd"),
    "apache_beam": ("Apache Beam", "beam"),
    "emoji": ("the package emoji", "data"),
    "gcsfs": ("gcsfs", "gcs"),
    "matplotlib": ("matplotlib", "plots"),
    "orbax.export": ("orbax-export", "tensorflow"),
    "pyarrow": ("pyarrow", "parquet"),
    "prometheus_client": ("prometheus-client", "serve"),
    "python_multipart": ("python-multipart", "serve"),
    "sse_starlette": ("sse-starlette", "serve"),
    "resvg_py": ("resvg-py", "data"),
    "starlette": ("Starlette", "serve"),
    "tensorflow": ("TensorFlow", "tensorflow"),
    "uvicorn": ("uvicorn", "serve"),
    "wandb": ("wandb", "wandb"),
}


def is_installed(module: str) -> bool:
    """Return whether a module can be imported; it is not imported here."""
    return importlib.util.find_spec(module) is not None


def require(module: str, subject: str) -> None:
    """Refuse a use whose package is missing.

    `subject` begins the sentence and ends in its verb: "gs://b/x: buckets need".
    Errors: ValueError with the command that installs the package.
    """
    if not is_installed(module):
        package, extra = EXTRAS[module]
        raise ValueError(f"{subject} {package}; pip install 'imagen_jax[{extra}]'")
