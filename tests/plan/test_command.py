"""`imagen plan` on the real TPU compiler, as a user calls it."""

import json
import subprocess
import sys

import pytest
from small_network import FOLDER

from imagen_jax import config, models
from imagen_jax.train import sharded_step

SMALL_BASE = str(FOLDER / "base8.py")
STEPS = (config.load(SMALL_BASE)[0].stage.sampler.steps, 5)
PLANS = {
    "train": [SMALL_BASE, "--topology", "v5e:2x2", "--batch", "64", "--price", "1.2"],
    "sample": [SMALL_BASE, "--topology", "v5e:2x2", "--sample", "--batch", "32", "--steps"]
    + [str(steps) for steps in STEPS],
    "encode": ["tiny/base8", "--topology", "v5e:2x2", "--encode"],
}
SLICES = [SMALL_BASE, "--topology", "v5e:2x2", "--slices", "2", "--batch", "64"]
REFUSED = {
    ("tiny/base8", "--topology", "v5e:2x2", "--batch", "31"): "give a multiple of",
    ("tiny/base8", "--topology", "v9:2x2"): "there are v4, v5e, v5p, v6e, tpu7x",
    ("tiny/base8", "--topology", "v5e:2x2", "--sample", "--fit"): "exclude each other",
    ("tiny/base8", "--topology", "v5e:2x2", "--price", "0"): "--price 0.0: must be",
    ("tiny/base8", "--topology", "v5e:2x2", "--steps", "20"): "--steps needs --sample or --distill",
    ("tiny/base8", "--topology", "v5e:2x2", "--distill", "moments"): "needs the number of steps",
    ("tiny/base8", "--topology", "v5e:2x2", "--distill", "moments", "--steps", "2", "4"): (
        "a student has one number"
    ),
    ("tiny/base8", "--topology", "v5e:2x2", "--distill", "guidance", "--encode"): (
        "leave out --encode and --fit"
    ),
    ("tiny/base8",): "topology",
    ("--table",): "needs files",
    ("--table", "nothing.json"): "nothing.json holds no plan",
}
RUN = """
import contextlib, io, json, sys
from imagen_jax import cli
from imagen_jax.cli import plan
found, refused = {}, []
plans, wrong = map(json.loads, sys.argv[1:])
for arguments in wrong:
    sys.argv, code = ["imagen", "plan", *arguments], 0
    with contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
    refused.append([code, err.getvalue()])
for name, arguments in plans.items():
    with contextlib.redirect_stdout(io.StringIO()) as out:
        plan.run([*arguments, "--json"])
    found[name] = json.loads(out.getvalue())
print(json.dumps([found, refused]))
"""


def _plan(plans: dict, refused: list) -> tuple[dict, list]:
    """All plans and refusals, from one process: planning has to start before jax does."""
    given = [json.dumps(plans), json.dumps(refused)]
    done = subprocess.run([sys.executable, "-c", RUN, *given], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def found() -> tuple[dict, list]:
    return _plan(PLANS, list(REFUSED))


@pytest.fixture(scope="module")
def plans(found: tuple[dict, list]) -> dict:
    return found[0]


def test_versions_are_told(plans: dict) -> None:
    assert set(plans["train"]["versions"]) == {"imagen_jax", "jax", "jaxlib", "libtpu"}


def test_a_training_plan_has_every_figure_and_they_agree(plans: dict) -> None:
    (plan,) = plans["train"]["plans"]
    experiment = config.load(SMALL_BASE)[0]
    shapes = models.parameter_shapes(experiment.stage, experiment.text)
    assert plan["parameters"] == models.count_parameters(shapes)
    assert (plan["chips"], plan["images"], plan["local_images"]) == (4, 64, 16)
    assert plan["mesh"] == {"data": 4, "fsdp": 1, "spatial": 1}
    hbm = plan["hbm_per_device"]
    parts = hbm["arguments_gib"] + hbm["outputs_gib"] + hbm["temporaries_gib"]
    assert hbm["total_gib"] == pytest.approx(parts)
    assert hbm["fits"]
    # parameters and their average in float32; small arrays fill whole tiles of 4 KiB
    assert hbm["arguments_gib"] * 2**30 > 8 * plan["parameters"]
    assert plan["collectives"]["all-reduce"]["payload"] >= 2 * plan["parameters"]
    seconds, roofline = plan["estimated_seconds"], plan["roofline_seconds"]
    assert seconds >= 0.98 * roofline[roofline["binds"]]
    assert plan["estimated_images_per_s_per_chip"] == pytest.approx(64 / seconds / 4)
    rate = plan["estimated_images_per_s_per_chip"] * plan["model_tflop_per_image"]
    assert plan["estimated_mfu"] == pytest.approx(rate / 197)
    assert plan["estimated_days"] == pytest.approx(4 * seconds / 86400)
    assert plan["estimated_cost"] == pytest.approx(4 * seconds / 3600 * 1.2 * 4)


def test_a_samplers_time_and_work_count_every_step(plans: dict) -> None:
    plan, shorter = plans["sample"]["plans"]
    assert (plan["steps"], shorter["steps"]) == STEPS
    assert shorter["estimated_seconds"] == pytest.approx(plan["estimated_seconds"] * 5 / STEPS[0])
    assert shorter["hbm_per_device"] == plan["hbm_per_device"]
    roofline = plan["roofline_seconds"]
    assert plan["estimated_seconds"] >= 0.98 * roofline[roofline["binds"]]
    experiment = config.load(SMALL_BASE)[0]
    sampler = experiment.stage.sampler
    passes = sampler.steps * (2 if sampler.guidance_weight != 1.0 else 1)
    forward = sharded_step.flops_per_image(experiment) / sharded_step.TRAINING / 1e12
    # The text's part is computed once, not at every step.
    assert 0.8 * passes * forward < plan["model_tflop_per_image"] <= passes * forward
    # The program's own count, of 8 pictures a device, has all convolutions, padded.
    assert plan["hardware_tflop_per_device"] > 0.8 * 8 * plan["model_tflop_per_image"]
    assert plan["images"] == 32


@pytest.mark.slow
def test_several_slices_are_planned() -> None:
    (plan,) = _plan({"slices": SLICES}, [])[0]["slices"]["plans"]
    assert (plan["slices"], plan["chips"], plan["local_images"]) == (2, 8, 8)


def test_the_text_encoder_is_planned(plans: dict) -> None:
    (plan,) = plans["encode"]["plans"]
    assert plan["what"] == "encode"
    assert plan["images"] == 128 * 128 // 20  # captions of 20 tokens in 128 full rows
    assert plan["chips"] == 4
    assert plan["hbm_per_device"]["fits"]


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_what_cannot_be_planned_is_refused_in_a_sentence(
    arguments: tuple[str, ...], found: tuple[dict, list]
) -> None:
    code, said = found[1][list(REFUSED).index(arguments)]
    assert code != 0
    assert REFUSED[arguments] in said
    assert "Traceback" not in said
