"""The rows of the recipe: each changes its fields alone, and all fit the packaged config."""

import dataclasses

import pytest
from lib import runs, variants

from imagen_jax import config

HEADS = "stage.model.head_channels"  # follow the channels


@pytest.fixture(scope="module")
def base() -> config.Experiment:
    return config.load("shapes")[0]


def test_names_are_unique() -> None:
    names = [row.name for row in variants.table()]
    assert len(set(names)) == len(names)
    assert names[0] == "baseline"


@pytest.mark.parametrize("row", variants.table(), ids=lambda row: row.name)
def test_a_row_changes_its_fields_alone(row: variants.Variant, base: config.Experiment) -> None:
    changed = runs.differences(base, row.apply(base))
    fields = tuple(field for field, _ in row.changes)
    assert all(name.startswith(fields) for name in changed)
    for field, value in row.changes:
        if not callable(value):
            assert changed.get(field, (value, value))[1] == value


@pytest.mark.parametrize(
    "row",
    [row for row in variants.table() if any(callable(value) for _, value in row.changes)],
    ids=lambda row: row.name,
)
def test_scaled_fields_are_multiples(row: variants.Variant, base: config.Experiment) -> None:
    changed = runs.differences(base, row.apply(base))
    scaled = {n: c for n, c in changed.items() if n not in ("optim.kind", HEADS)}
    ((before, after),) = scaled.values()
    assert after == pytest.approx(before * float(row.name.rpartition("x")[2]))
    assert type(after) is type(before)


def test_wider_networks_keep_heads_that_fit() -> None:
    model = config.UNet(
        channels=96, channel_mult=(1, 1), attention_at=(8, 4), head_channels=32, norm_groups=8
    )
    sizes = [
        (net.channels, net.head_channels)
        for net in (variants.widened(model, f) for f in (0.5, 1.0, 1.5, 2.0))
    ]
    assert sizes == [(48, 16), (96, 32), (144, 16), (192, 32)]


def test_every_kind_has_a_row_that_differs(base: config.Experiment) -> None:
    rows = variants.table()[1:]
    differing = {row.name.partition("=")[0] for row in rows if row.apply(base) != base}
    assert differing | {"wording"} == {row.name.partition("=")[0] for row in rows}


def test_rows_are_chosen_by_name_or_kind() -> None:
    assert variants.choose(()) == list(variants.table())
    chosen = [row.name for row in variants.choose(("text", "guidance=2.0", "baseline"))]
    assert chosen[0] == "baseline"
    assert "text=pooled_only" in chosen
    assert "text_drop_rate=0.0" not in chosen
    assert chosen[-1] == "guidance=2.0"
    with pytest.raises(ValueError, match="--only guidance=77: no such variant"):
        variants.choose(("guidance=77",))


def test_a_value_that_does_not_fit_is_refused(base: config.Experiment) -> None:
    row = variants.Variant("channels=1", (("stage.model.channels", 1),))
    with pytest.raises(ValueError, match="norm_groups"):
        row.apply(base)
    pooled = variants.Variant("a", (("stage.model.text.kv", "none"),)).apply(base)
    with pytest.raises(ValueError, match="would ignore the text"):
        variants.Variant("b", (("stage.model.text.pool", "none"),)).apply(pooled)
    assert dataclasses.is_dataclass(pooled)
