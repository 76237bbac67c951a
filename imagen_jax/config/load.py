"""Reading config files, a run's resolved config as JSON, and chaining stages to a cascade."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from imagen_jax.config.decode import decode, find_function
from imagen_jax.config.experiment import Experiment
from imagen_jax.io import json_reader, paths

PACKAGED = "imagen_jax.configs"
OF_OTHERS = ("config.json", "manifest.json", "model_index.json")  # which are not our configs


def to_json(experiment: Experiment) -> str:
    """Encode the whole config as JSON; `from_json` rebuilds it."""
    return json.dumps(_encode(experiment), indent=2)


def from_json(text: str | bytes) -> Experiment:
    """Decode a config written by `to_json`.

    A field that is missing has its default: runs outlive the versions that wrote them.
    Errors: ValueError for a text that is not JSON; else naming the key, for an unknown one, a
    missing one without default or a value of another type.
    """
    remedy = "restore the file or train again"
    return decode(Experiment, json_reader.parse_json(text, where="it", remedy=remedy), "config")


def load(path: str) -> tuple[Experiment, ...]:
    """Load the experiments of a config file, or of a folder of them in cascade order.

    `path` is a file, a folder, or the name of a packaged config such as `quickstart/base16`.
    Errors: FileNotFoundError for no such config; ValueError when stages don't chain, and for the
    folder of a run or of an exported cascade.
    """
    found = _find(path)
    if found.is_file():
        return (_run(found),)
    for name in OF_OTHERS:
        if (found / name).is_file():
            raise ValueError(
                f"{found} has a {name}, as a run or an exported cascade has: a program in it may "
                "be anybody's, and is not run; give the folder or the name of a config"
            )
    files = sorted(f for f in found.glob("*.py") if not f.name.startswith((".", "__init__.")))
    if not files:
        raise FileNotFoundError(f"no config (*.py) in folder {found}")
    return chain([_run(f) for f in files], where=str(found))


def chain(experiments: Sequence[Experiment], *, where: str) -> tuple[Experiment, ...]:
    """Order stages from coarse to fine.

    Errors: ValueError unless the first samples from text and each next one starts where it ends.
    """
    ordered = tuple(sorted(experiments, key=lambda e: e.stage.size))
    previous = None
    for stage in (e.stage for e in ordered):
        if stage.low_size != previous:
            needs = "none" if stage.low_size is None else f"a stage of size {stage.low_size}"
            before = "nothing" if previous is None else f"a stage of size {previous}"
            raise ValueError(
                f"{where}: the stages don't chain: {stage.name} "
                f"({stage.low_size or 'text'} -> {stage.size}) needs {needs} before it, "
                f"found {before}"
            )
        previous = stage.size
    # Of encoders whose digests are known the place does not matter.
    place: dict[str, Any] = (
        {"encoder": "", "tokenizer": ""} if all(e.text.identity for e in ordered) else {}
    )
    texts = {
        dataclasses.replace(e.text, identity="", vocabulary="", dtype=e.text.computed_in, **place)
        for e in ordered
    }
    # A run from before digests were kept has none, and may stand beside one that has.
    identities = {e.text.identity for e in ordered} - {""}
    if len(texts) > 1 or len(identities) > 1:
        raise ValueError(
            f"{where}: the stages read different text encoders: {texts} {identities or ''}"
        )
    return ordered


def _find(path: str) -> Path:
    here = paths.local_path(path)
    if here.exists():
        return here
    spec = importlib.util.find_spec(PACKAGED)
    roots = list(spec.submodule_search_locations or ()) if spec else []
    for packaged in (Path(root) / path for root in roots):
        for candidate in (packaged, packaged.with_suffix(".py")):
            if candidate.exists():
                return candidate
    raise FileNotFoundError(
        f"no config {path!r}: neither a file or folder here nor one that comes with imagen_jax "
        "(such as quickstart, quickstart/base16, imagen/base64_2b)"
    )


def _run(file: Path) -> Experiment:
    if file.suffix != ".py":
        raise ValueError(f"{file}: a config is a Python file with get_config()")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None  # a .py file always has a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _naming(file):
        spec.loader.exec_module(module)
    if not callable(getattr(module, "get_config", None)):
        raise ValueError(f"{file}: no function get_config(): define one that returns an Experiment")
    with _naming(file):
        experiment = module.get_config()
    if not isinstance(experiment, Experiment):
        raise ValueError(f"{file}: get_config() gave {type(experiment).__name__}, not Experiment")
    return experiment


@contextlib.contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Turn whatever a config file raises into one sentence with file and line."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        names = str(file), str(file.absolute())  # modules have the latter
        if isinstance(error, SyntaxError) and error.filename in names:
            line, said = error.lineno, error.msg
        else:
            frames = traceback.extract_tb(error.__traceback__)
            line = next((f.lineno for f in reversed(frames) if f.filename in names), None)
            said = " ".join(str(error).split())
        where = f"{file}, line {line}" if line else str(file)
        kinds = [] if isinstance(error, ValueError) and said else [type(error).__name__]
        what = ": ".join(filter(None, [*kinds, said]))
        raise ValueError(f"{where}: {what}; mend the config") from error


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = {f.name: _encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"_type": type(value).__name__, **fields}
    if isinstance(value, tuple):
        return [_encode(v) for v in value]
    return _encode_function(value) if callable(value) else value


def _encode_function(function: Any) -> dict[str, str]:
    """Encode a function by its place. Errors: ValueError for one that has none."""
    module, name = (getattr(function, key, "") for key in ("__module__", "__qualname__"))
    if find_function(module, name) is not function:
        raise ValueError(
            f"{function!r} can't be stored with a run: define it with def at the top level of a "
            "module, and import it from there"
        )
    return {"_type": "Callable", "module": module, "name": name}
