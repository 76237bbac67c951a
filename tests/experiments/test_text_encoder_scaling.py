"""Text encoder against U-Net on a miniature, and the plot of both axes."""

import dataclasses
import json
from pathlib import Path

import pytest
import text_encoder_scaling
from lib import runs

from imagen_jax import config
from imagen_jax.io import run_dir

MINIATURE = str(Path(__file__).parent / "miniature")


@pytest.fixture(scope="module")
def options(data_dir: Path, tmp_path_factory) -> text_encoder_scaling.Options:
    folder = tmp_path_factory.mktemp("text_encoder")
    return text_encoder_scaling.Options(
        encoders=("t5_1_1_tiny", "random"),
        unets=(1.0,),
        steps=4,  # as in the config: what one test compiles serves the others
        examples=16,
        images=8,
        configs=MINIATURE,
        batch_size=8,
        data_dir=data_dir,
        workdir=folder / "runs",
        out=folder / "out",
    )


@pytest.fixture(scope="module")
def results(options: text_encoder_scaling.Options) -> dict:
    text_encoder_scaling.run(options)
    return json.loads((options.out / "text_encoder_scaling.json").read_text())["results"]


def test_every_pair_is_trained_with_its_encoder(
    options: text_encoder_scaling.Options, results: dict
) -> None:
    assert set(results) == {"t5_1_1_tiny-x1", "random-x1"}
    runs = options.workdir / "text_encoder_scaling"
    texts = [run_dir.read_config(runs / name).text.encoder for name in results]
    assert texts[0] == "t5_1_1_tiny"
    assert Path(texts[1]).name == "t5_1_1_tiny_random_1"
    one, other = results.values()
    assert one["identity"] != other["identity"]
    assert one["encoder_parameters"] == other["encoder_parameters"]
    assert one["noise_error"] == pytest.approx(1.0, abs=0.05)  # nothing is learned in four steps
    encoded = sorted(
        p.name for p in (options.data_dir / "encoded" / "shapes-tiny-first-16").iterdir()
    )
    assert encoded == ["t5_1_1_tiny", "t5_1_1_tiny_random_1"]


def test_pairs_are_kept_and_shown(
    options: text_encoder_scaling.Options, results: dict, monkeypatch
) -> None:
    monkeypatch.setattr(runs, "train", lambda *_, **__: pytest.fail("trained again"))
    text_encoder_scaling.run(dataclasses.replace(options, encoders=("random",)))
    text = (options.out / "text_encoder_scaling.md").read_text()
    assert "| random | 64 |" in text
    assert "| t5_1_1_tiny |" not in text  # not asked for this time
    assert "python experiments/text_encoder_scaling.py --" in text
    assert " --encoders random --unets 1.0 --" in text
    kept = json.loads((options.out / "text_encoder_scaling.json").read_text())["results"]
    assert kept == results


def test_widths_are_multiples() -> None:
    base = config.load("shapes")[0]
    channels = base.stage.model.channels
    half, whole = text_encoder_scaling.widened(base, text_encoder_scaling.Options().unets)
    assert (half.stage.model.channels, whole) == (channels // 2, base)
    with pytest.raises(ValueError, match="norm_groups"):
        text_encoder_scaling.widened(base, (1.03,))
    with pytest.raises(ValueError, match="not a EfficientUNet"):
        text_encoder_scaling.widened(config.load(MINIATURE)[1], (1.0,))


def test_two_encoders_of_one_name_are_refused(
    options: text_encoder_scaling.Options, tmp_path: Path
) -> None:
    options = dataclasses.replace(options, encoders=("random", "random"), out=tmp_path)
    with pytest.raises(ValueError, match="end in the same name"):
        text_encoder_scaling.run(options)


def test_lines_join_what_differs_in_one_thing() -> None:
    def found(encoder: str, factor: float, right: float) -> dict:
        scores = {"both": {"all": right, "colour": right + 0.1}}
        size = int(1e6 * factor)
        return {"encoder": encoder, "factor": factor, "unet_parameters": size, "scores": scores}

    pairs = {("tiny", 0.5): 0.1, ("tiny", 1.0): 0.3, ("mini", 0.5): 0.2, ("mini", 1.0): 0.5}
    figure = text_encoder_scaling.plot(
        {f"{e}-x{f:g}": found(e, f, right) for (e, f), right in pairs.items()}
    )
    by_unet, by_encoder = figure.axes
    lines = {line.get_label(): line for line in by_unet.lines if line.get_linestyle() == "-"}
    assert list(lines) == ["tiny", "mini"]
    assert list(lines["mini"].get_xdata()) == [5e5, 1e6]
    assert list(lines["mini"].get_ydata()) == [20.0, 50.0]
    lines = {line.get_label(): line for line in by_encoder.lines if line.get_linestyle() == "-"}
    assert list(lines["U-Net x 1"].get_xdata()) == ["tiny", "mini"]
    assert list(lines["U-Net x 1"].get_ydata()) == [30.0, 50.0]
    assert len(by_unet.lines) == len(by_encoder.lines) == 4
