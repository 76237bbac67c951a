"""Configs refuse what would be ignored, survive JSON, and chain to cascades."""

import contextlib
import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from imagen_jax import config
from imagen_jax.cli import config_overrides, train

BASE = config.Experiment(
    stage=config.Stage(name="base", size=64, model=config.UNet()),
)
SUPER = config.Experiment(
    stage=config.Stage(name="sr256", size=256, low_size=64, model=config.EfficientUNet()),
)


def _level(**changes: object) -> config.Level:
    return dataclasses.replace(config.Level(channels=32, blocks=1), **changes)


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda: config.UNet(channels=100), ["norm_groups=32", "channels"]),
        (lambda: config.UNet(channels=64, head_channels=48), ["head_channels=48"]),
        (lambda: config.UNet(attention_at=()), ["attention_at", "text.kv"]),
        (lambda: config.TextConditioning(kv="none", pool="none"), ["kv='none'", "pool='none'"]),
        (lambda: _level(stride=3), ["stride", "3"]),
        (lambda: config.EfficientUNet(levels=()), ["levels"]),
        (lambda: config.EfficientUNet(levels=(_level(),)), ["text_attention", "concat"]),
        (
            lambda: config.EfficientUNet(levels=(_level(text_attention=True),)),
            ["concat", "self_attention"],
        ),
        (lambda: config.EfficientUNet(heads=7), ["heads=7"]),
        (lambda: config.NoiseSchedule(logsnr_min=3.0, logsnr_max=1.0), ["logsnr_min=3.0"]),
        (lambda: config.Diffusion(preconditioning="edm"), ["edm", "predicts='eps'"]),
        (lambda: config.Diffusion(predict_residual=True), ["predict_residual", "eps"]),
        (
            lambda: config.Diffusion(predict_residual=True, predicts="x0", preconditioning="edm"),
            ["predict_residual", "edm"],
        ),
        (lambda: config.NoiseConditioning(max_level=1.5), ["max_level=1.5"]),
        (lambda: config.Sampler(percentile=0.995), ["percentile=0.995", "99.5"]),
        (lambda: config.Sampler(steps=0), ["steps=0"]),
        (lambda: config.Sampler(stochasticity=2.0), ["stochasticity=2.0"]),
        (lambda: dataclasses.replace(BASE.stage, size=60), ["60", "8"]),
        (lambda: dataclasses.replace(BASE.stage, crop=32), ["crop=32", "low_size"]),
        (lambda: dataclasses.replace(BASE.stage, size=128), ["attention_at", "(128, 64, 32, 16)"]),
        (lambda: dataclasses.replace(SUPER.stage, crop=36), ["crop=36", "16"]),
        (lambda: dataclasses.replace(SUPER.stage, crop=512), ["crop=512", "256"]),
        (lambda: dataclasses.replace(SUPER.stage, low_size=60), ["60", "256"]),
        (lambda: dataclasses.replace(SUPER.stage, low_size=256), ["low_size", "256"]),
        (lambda: dataclasses.replace(BASE.stage, text_drop_rate=1.5), ["text_drop_rate=1.5"]),
        (
            lambda: dataclasses.replace(
                BASE.stage, diffusion=config.Diffusion(predict_residual=True, predicts="v")
            ),
            ["predict_residual", "low_size"],
        ),
        (
            lambda: dataclasses.replace(
                BASE.stage,
                model=config.DeepFloydUNet(
                    levels=(config.DeepFloydLevel(channels=64),),
                    text_channels=64,
                    cond_channels=64,
                    betas="linear",
                ),
                diffusion=config.Diffusion(schedule=config.NoiseSchedule(kind="cosine_betas")),
            ),
            ["schedule.kind='cosine_betas'", "model.betas='linear'"],
        ),
        (lambda: config.Optim(learning_rate=0.0), ["learning_rate=0.0"]),
        (lambda: config.Data(max_damaged=1.5), ["max_damaged=1.5"]),
        (lambda: config.Data(max_damaged=-0.1), ["max_damaged=-0.1"]),
        (lambda: config.Optim(ema_decay=1.0), ["ema_decay=1.0"]),
        (lambda: config.Train(batch_size=0), ["batch_size=0"]),
        (
            lambda: dataclasses.replace(BASE, train=config.Train(sample_every=10)),
            ["sample_every=10", "sample_prompts"],
        ),
        (
            lambda: dataclasses.replace(SUPER, train=config.Train(sample_prompts=("a circle",))),
            ["sample_prompts=('a circle',)", "enlarges records"],
        ),
        (lambda: config.Mesh(fsdp=0), ["fsdp=0"]),
        (lambda: config.Train(batch_size=8, micro_batches=3), ["batch_size=8", "micro_batches=3"]),
        (
            lambda: dataclasses.replace(
                BASE,
                stage=dataclasses.replace(
                    BASE.stage, model=config.UNet(text=config.TextConditioning(positions=8))
                ),
            ),
            ["max_length=32", "positions=8"],
        ),
    ],
)
def test_illegal_combinations_are_refused_by_name(build, names: list[str]) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011, several names are looked for below
        build()
    for name in names:
        assert name in str(refusal.value)


@pytest.mark.parametrize("experiment", [BASE, SUPER])
def test_json_round_trip_is_exact(experiment: config.Experiment) -> None:
    assert config.from_json(config.to_json(experiment)) == experiment


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["optim"].update(learning_rat=1.0), "unknown key 'learning_rat'"),
        (lambda d: d["stage"].pop("size"), "missing key 'size'"),
        (lambda d: d["train"].update(steps="many"), "config.train.steps: expected int"),
        (lambda d: d["stage"]["diffusion"].update(predicts="noise"), "'noise' is none of"),
        (lambda d: d["stage"]["model"].update(_type="Transformer"), "unknown type 'Transformer'"),
        (lambda d: d["stage"]["model"].update(channel_mult=3), "expected a list"),
        (lambda d: d.update(mesh=3), "expected the fields of Mesh"),
        (lambda d: d["stage"].update(size=True), "expected int"),
    ],
)
def test_json_that_does_not_fit_is_refused_by_name(change, says: str) -> None:
    document = json.loads(config.to_json(BASE))
    change(document)
    with pytest.raises(ValueError, match=says):
        config.from_json(json.dumps(document))


def test_options_that_a_run_is_older_than_have_their_defaults() -> None:
    document = json.loads(config.to_json(BASE))
    del document["train"]["micro_batches"]
    del document["mesh"]
    assert config.from_json(json.dumps(document)) == BASE


def test_a_noise_schedule_that_is_stored_flat_reads() -> None:
    """As runs have it that are older than `NoiseSchedule`."""
    schedule = config.NoiseSchedule(kind="linear", logsnr_min=-15.0, shift=-2.0)
    stage = dataclasses.replace(SUPER.stage, diffusion=config.Diffusion(schedule=schedule))
    document = json.loads(config.to_json(dataclasses.replace(SUPER, stage=stage)))
    diffusion, noise = (document["stage"][name] for name in ("diffusion", "noise_conditioning"))
    nested = diffusion.pop("schedule")
    diffusion |= {name: nested[name] for name in ("logsnr_min", "logsnr_max", "shift")}
    diffusion["schedule"], noise["schedule"] = "linear", "cosine"
    assert config.from_json(json.dumps(document)).stage == stage


def even(t: Any) -> Any:
    return 10.0 - 20.0 * t


def _with_curve(curve: Any) -> config.Experiment:
    diffusion = config.Diffusion(schedule=config.NoiseSchedule(curve=curve))
    return dataclasses.replace(BASE, stage=dataclasses.replace(BASE.stage, diffusion=diffusion))


def test_a_function_in_a_config_is_stored_by_its_place() -> None:
    text = config.to_json(_with_curve(even))
    assert config.from_json(text).stage.diffusion.schedule.curve is even
    elsewhere = text.replace(even.__module__, "that_nobody_imported")
    with pytest.raises(ValueError, match=r"that_nobody_imported.*before reading the run"):
        config.from_json(elsewhere)
    for nowhere in (lambda t: -t, jnp.negative, functools.partial(even)):
        with pytest.raises(ValueError, match="at the top level of a module"):
            config.to_json(_with_curve(nowhere))
    with pytest.raises(ValueError, match="curve=3: must be None or a function"):
        config.check_value(3, config.diffusion.Curve | None, "curve")
    with pytest.raises(ValueError, match="kind='linear' changes nothing beside a curve"):
        config.NoiseSchedule(curve=even, kind="linear")


@pytest.mark.parametrize("noted", config_overrides.NOTED)
def test_options_that_a_run_notes_itself_are_refused(noted: str) -> None:
    for given in ([noted, "x"], [f"{noted}=x"]):
        with pytest.raises(ValueError, match=f"^{noted} would change nothing: .* give --"):
            train.parse(["tiny/base8", "--workdir", "w", *given])


@pytest.mark.parametrize("old", config_overrides.RENAMED)
def test_an_option_that_was_renamed_is_refused_with_its_name(old: str) -> None:
    for option in (old, old.replace("-", "_").replace("__", "--", 1)):
        with pytest.raises(ValueError, match=f"give {config_overrides.RENAMED[old]}$"):
            train.parse(["tiny/sr16", "--workdir", "x", f"{option}=1"])


def test_stages_that_do_not_chain_are_refused() -> None:
    assert config.chain([SUPER, BASE], where="here") == (BASE, SUPER)
    with pytest.raises(ValueError, match=r"sr256 \(64 -> 256\) needs a stage of size 64"):
        config.chain([SUPER], where="here")
    other = dataclasses.replace(SUPER, text=config.Text(encoder="another"))
    with pytest.raises(ValueError, match="different text encoders"):
        config.chain([BASE, other], where="here")


def test_a_folder_of_configs_is_a_cascade(tmp_path: Path) -> None:
    base = "from imagen_jax.config import *\ndef get_config():\n    return Experiment("
    (tmp_path / "b.py").write_text(base + "stage=Stage(name='b', size=64, model=UNet()))\n")
    sr = base + "stage=Stage(name='s', size=256, low_size=64, model=EfficientUNet()))\n"
    (tmp_path / "a.py").write_text(sr)
    (tmp_path / "._a.py").write_bytes(b"\0what macOS leaves")
    assert [e.stage.name for e in config.load(str(tmp_path))] == ["b", "s"]
    assert config.load(str(tmp_path / "a.py"))[0].stage.low_size == 64
    (tmp_path / "b.py").unlink()
    with pytest.raises(ValueError, match="don't chain"):
        config.load(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("x = 1", "no function get_config"),
        ("def get_config():\n    return 3", "gave int, not Experiment"),
    ],
)
def test_files_that_are_no_config_are_refused(tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "c.py").write_text(text)
    with pytest.raises(ValueError, match=error):
        config.load(str(tmp_path / "c.py"))


def test_missing_configs_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no config 'nowhere/base'"):
        config.load("nowhere/base")
    with pytest.raises(FileNotFoundError, match="no config"):
        config.load(str(tmp_path))
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(ValueError, match="a config is a Python file"):
        config.load(str(tmp_path / "c.json"))


def test_importing_the_package_is_quick_and_loads_no_jax() -> None:
    program = (
        "import socket, sys, time\n"
        "socket.socket = None\n"  # an import needs no network
        "t = time.perf_counter()\n"
        "import imagen_jax, imagen_jax.config\n"
        "took = time.perf_counter() - t\n"
        "heavy = {'jax', 'torch', 'tensorflow', 'transformers', 'flax', 't5x'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert took < 0.3, took\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_stages_may_lack_the_digest_of_their_encoder_but_not_have_two() -> None:
    stages = config.load("tiny")

    def told(*identities: str) -> list[config.Experiment]:
        return [
            dataclasses.replace(e, text=dataclasses.replace(e.text, identity=x))
            for e, x in zip(stages, identities, strict=True)
        ]

    assert len(config.chain(told("", "ab", "ab"), where="runs")) == 3
    with pytest.raises(ValueError, match="different text encoders"):
        config.chain(told("", "ab", "cd"), where="runs")
    texts = [{"encoder": "/a/enc", "tokenizer": "/a/t"}, {"encoder": "enc"}, {"encoder": "enc"}]
    for identity, chains in (("ab", True), ("", False)):
        moved = [
            dataclasses.replace(e, text=dataclasses.replace(e.text, **text))
            for e, text in zip(told(*[identity] * 3), texts, strict=True)
        ]
        with contextlib.nullcontext() if chains else pytest.raises(ValueError, match="different"):
            config.chain(moved, where="runs")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\ndef get_config(:\n", "line 2: SyntaxError: invalid syntax"),
        ("from imagen_jax import config\n\nconfig.Train(stepz=3)\n", "line 3: TypeError: .*stepz"),
        ("x = 1\n\ny = nowhere\n", "line 3: NameError: name 'nowhere' is not defined"),
        ("import no_such_package\n", "line 1: ModuleNotFoundError: No module named"),
        ("from imagen_jax.config import Nothing\n", "line 1: ImportError: cannot import name"),
        ("def get_config():\n    return 1 / 0\n", "line 2: ZeroDivisionError: division by zero"),
        ("def get_config():\n    raise SystemExit('no')\n", "line 2: SystemExit: no"),
        ("def get_config(x):\n    return x\n", "TypeError: .*missing 1 required"),
        ("get_config = 3\n", r"no function get_config\(\): define one"),
        ("", r"no function get_config\(\): define one"),
        ("def get_config():\n    return 3\n", r"get_config\(\) gave int, not Experiment"),
        ("x = '\\x00'\0\n", "SyntaxError|null bytes"),
        ("open('no such file')\n", "line 1: FileNotFoundError: .*no such file"),
        ("f = lambda: f()\nf()\n", "line 1: RecursionError"),
        ("assert False\n", "line 1: AssertionError; mend"),
        ("raise ValueError\n", "line 1: ValueError; mend"),
        ("class E(BaseException): pass\nraise E('x')\n", "line 2: E: x"),
        (
            "from imagen_jax import config\ndef get_config():\n    return config.Train(steps=-1)\n",
            "line 3: ",
        ),
    ],
)
def test_whatever_a_config_raises_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(ValueError, match=says) as caught:
        config.load(str(file))
    assert str(caught.value).startswith(f"{file}")
    assert "\n" not in str(caught.value)
    monkeypatch.chdir(tmp_path)  # the same of a path from here
    with pytest.raises(ValueError, match=says):
        config.load("mine.py")
