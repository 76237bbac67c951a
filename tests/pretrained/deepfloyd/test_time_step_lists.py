"""DeepFloyd's lists of time steps, against their checksums."""

import hashlib
import json

import pytest
from deepfloyd_references import FOLDER

from imagen_jax.pretrained.deepfloyd import time_steps

WANTED = json.loads((FOLDER / "refs" / "manifest.json").read_text())["presets"]


@pytest.mark.parametrize("name", time_steps.PRESETS)
def test_a_list_is_the_published_one(name: str) -> None:
    found, wanted = time_steps.preset(name), WANTED[name]
    assert len(found) == wanted["n"] == len(set(found))
    assert (found[0], found[-1], sum(found)) == (wanted["first"], wanted["last"], wanted["sum"])
    digest = hashlib.sha256(",".join(map(str, found)).encode()).hexdigest()
    assert digest == wanted["sha256"]


def test_lists_are_read_by_name_or_by_number() -> None:
    assert time_steps.parse_list("fast27") == time_steps.preset("fast27")
    assert time_steps.parse_list("999:600:0") == (999, 600, 0)
    with pytest.raises(ValueError, match="there are fast27"):
        time_steps.preset("smart51")
