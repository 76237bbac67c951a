"""Imports point one way: the table of allowed imports, checked on the syntax trees."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "imagen_jax"
OPEN_TO_ALL = {"types", "config", "image", "extras", "limits", "discrete_schedule"}

ALLOWED = {
    "types": set(),
    "config": {"io"},  # of it `paths` and `json_reader` alone: see below
    "image": set(),
    "extras": set(),
    "limits": set(),
    "discrete_schedule": set(),
    "rng": set(),
    "io": set(),
    "parallel": set(),
    "runtime": {"io"},  # a parent process: no jax
    "cloud": {"io", "parallel", "runtime"},  # as runtime: of parallel, accelerators alone
    "text": {"io", "parallel"},
    "data": {"io", "text"},
    "models": set(),
    "lora": {"io", "rng"},
    "diffusion": {"rng"},
    "train": {"data", "diffusion", "io", "lora", "models", "parallel", "rng", "runtime"},
    "sample": {"diffusion", "io", "models", "parallel", "rng"},  # of io, atomic alone
    "evaluate": {"data", "diffusion", "imagen", "io", "metrics", "sample"},  # metrics alone: data
    "metrics": {"data", "io", "models", "parallel"},
    "plan": {"diffusion", "models", "parallel", "rng", "sample", "text", "train"},
    "export": {"diffusion", "io", "models", "parallel", "sample", "text"},
    "samples": {"io"},
    "imagen": {"data", "diffusion", "parallel", "sample", "samples", "text"},
    "pretrained": {
        *("export", "imagen", "io", "lora", "models", "parallel", "rng", "sample", "text")
    },
    "__init__": {"imagen", "pretrained", "sample", "samples"},
    "__main__": {"cli"},
    "finetune": {"data", "io"},
    "serve": {"data", "diffusion", "imagen", "io", "sample", "text"},
    "cli": None,  # everything: all wiring
}
FILES = sorted(LIBRARY.rglob("*.py"))
BESIDE = ("benchmarks", "configs", "experiments", "docs")  # of one size with the library
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 300, 40
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in FILES
}
# What importing a module must not load, directly or by way of others.
NEVER_LOADED = {
    "imagen_jax.train.loop": {"sample", "text", "export", "cli", "plan"},
    "imagen_jax.sample.cascade": {
        *("train", "data", "export", "cli"),
        *("io.checkpoints", "io.checksums", "io.safetensors", "io.workdir"),
    },
    "imagen_jax.models.unet": {"diffusion", "train", "sample", "data", "text"},
    "imagen_jax.diffusion.samplers": {"models", "train", "sample", "data", "text"},
    "imagen_jax.data.pipeline": {"models", "train", "sample", "text", "parallel"},
    "imagen_jax.evaluate.alignment": {"imagen", "sample", "diffusion", "models"},
    "imagen_jax.evaluate.report": {"imagen", "sample", "diffusion", "models", "data"},
    "imagen_jax.text.encoder": {"models", "diffusion", "train", "sample", "export"},
}
# Names of public classes that more than one module has, and why.
SHARED_NAMES = {
    "DeepFloydUNet": "config.DeepFloydUNet describes models.DeepFloydUNet; config.json names it",
    "EfficientUNet": "config.EfficientUNet describes models.EfficientUNet; config.json names it",
    "Options": "of a command: the one that its own module in `cli` reads",
    "UNet": "config.UNet describes models.UNet; config.json names it",
}
SHARING = {
    "DeepFloydUNet": {"imagen_jax.config.deepfloyd", "imagen_jax.models.deepfloyd_unet"},
    "EfficientUNet": {"imagen_jax.config.models", "imagen_jax.models.efficient_unet"},
    "UNet": {"imagen_jax.config.models", "imagen_jax.models.unet"},
}


def _unit(file: Path) -> str:
    """`text` for imagen_jax/text/t5.py, `mesh` for imagen_jax/parallel/mesh.py."""
    return file.relative_to(LIBRARY).parts[0].removesuffix(".py")


def _imported(file: Path) -> set[str]:
    """Parts of imagen_jax that a file imports, lazily or not."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            parts = (node.module or "").split(".")
            if parts[0] == "imagen_jax":
                found |= {parts[1]} if len(parts) > 1 else {a.name for a in node.names}
        if isinstance(node, ast.Import):
            names = [a.name.split(".") for a in node.names]
            found |= {p[1] if len(p) > 1 else "__init__" for p in names if p[0] == "imagen_jax"}
    return found


def _loads(module: str) -> set[str]:
    """The modules that one imports when it is imported itself, and the packages they are in."""
    found = set()
    for node in _executed(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{a.name}" for a in node.names)}
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
    packages = {name.rpartition(".")[0] for name in found & set(MODULES)}
    return (found | packages) & set(MODULES)


def _all_loaded(module: str) -> set[str]:
    """The modules that importing one loads, directly or by way of others, and itself."""
    loaded, waiting = set[str](), [module]
    while waiting:
        if (one := waiting.pop()) not in loaded:
            loaded.add(one)
            waiting += _loads(one)
    return loaded


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is imported: no bodies of functions, nothing for type checkers."""
    for child in ast.iter_child_nodes(node):
        for_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if not for_types and not isinstance(child, ast.FunctionDef | ast.Lambda):
            yield child
            yield from _executed(child)


def test_imports_point_one_way() -> None:
    wrong = {}
    for file in FILES:
        unit = _unit(file)
        assert unit in ALLOWED, f"{unit} is missing from the table"
        if (allowed := ALLOWED[unit]) is not None:
            wrong[str(file)] = sorted(_imported(file) - allowed - OPEN_TO_ALL - {unit})
    assert not {file: units for file, units in wrong.items() if units}


@pytest.mark.parametrize("module", NEVER_LOADED)
def test_importing_a_module_loads_no_part_that_it_must_not_know(module: str) -> None:
    loaded = _all_loaded(module)
    parts = {_unit(MODULES[one]) for one in loaded}
    parts |= {one.removeprefix("imagen_jax.") for one in loaded}
    assert not parts & NEVER_LOADED[module]


def test_a_public_class_name_means_one_thing() -> None:
    homes: dict[str, list[str]] = {}
    for module, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(module)
    shared = {name: set(modules) for name, modules in homes.items() if len(modules) > 1}
    assert shared.keys() == SHARED_NAMES.keys()
    assert all(module.startswith("imagen_jax.cli.") for module in shared.pop("Options"))
    assert shared == SHARING


def test_of_io_config_knows_paths_and_json_alone() -> None:
    """`io.run_dir` and `io.checkpoints` import config: to load them would close a circle."""
    own = {module for module in MODULES if module.startswith("imagen_jax.config")}
    of_io = {name for module in own for name in _loads(module) if name.startswith("imagen_jax.io.")}
    assert of_io == {"imagen_jax.io.paths", "imagen_jax.io.json_reader"}
    loaded = {one for module in of_io for one in _all_loaded(module)}
    assert not {one for one in loaded if _loads(one) & own}


def test_configs_import_nothing_but_config() -> None:
    for file in (ROOT / "configs").rglob("*.py"):
        assert _imported(file) <= {"config"}, file


def test_size_budget() -> None:
    large = []
    for file in (*FILES, *(f for folder in BESIDE for f in sorted((ROOT / folder).rglob("*.py")))):
        source = file.read_text()
        if (count := source.count("\n")) > MOST_LINES:
            large.append(f"{file} has {count} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > MOST_LINES_OF_A_FUNCTION:
                    large.append(f"{file}:{node.lineno} {node.name} has {length} lines")
    assert not large


def test_axis_names_live_in_one_file() -> None:
    for file in FILES:
        if file.name != "axes.py":
            literals = {
                n.value
                for n in ast.walk(ast.parse(file.read_text()))
                if isinstance(n, ast.Constant) and isinstance(n.value, str)
            }
            assert "fsdp" not in literals, file
