"""Inputs that once did harm: each is refused by the sentence that it ought to be, or loads."""

from pathlib import Path

import pytest
from fuzz import registry
from fuzz.mutator import read_files, write_files
from fuzz.target import CORPUS, OVER

SAYS = {  # None: it loads, and what is damaged in it is left out
    "emoji_svg/huge-circle": "it cannot be drawn: range start index",
    "hugging_face/layer-999999999": "layers are not numbered from 0 on",
    "hugging_face/many-shards": r"lacks model-2-of-99999999999.* and others",
    "hugging_face/no-heads": r"has shape \(0, 32\), which holds nothing",
    "log/rate-no-number": None,
    "mixture/many-names": "names more than 1,000,000 files",
    "mixture/many-pairs": "names more than 1,000,000 files",
    "parquet/fewer-rows": None,
    "run_checkpoint/over-metrics-no-fields": "incomplete or damaged.*must be of type",
    "run_checkpoint/over-no-metadata": "incomplete or damaged",
    "run_checkpoint/over-time-out-of-range": "incomplete or damaged.*timestamp",
    "skipped_list/no-text": "is no UTF-8 text, from byte 0 on",
    "store_index/no-text": "is no UTF-8 text, from byte 27 on",
    "t5x_tree/key-no-text": "which is no text: save it again",
    "worker_reports/no-json": r"worker-\*\.json: one of them is no worker's report",
    "worker_reports/number-of-5000-digits": "is no worker's report",
}


def test_every_input_of_the_corpus_is_told_what_becomes_of_it() -> None:
    assert set(SAYS) == {f"{one.parent.name}/{one.name}" for one in CORPUS.glob("*/*")}
    assert {name.partition("/")[0] for name in SAYS} <= set(registry.TARGETS)


@pytest.mark.parametrize("name", SAYS)
def test_what_once_did_harm_is_refused(name: str, tmp_path: Path) -> None:
    target, says = registry.TARGETS[name.partition("/")[0]], SAYS[name]
    if name.partition("/")[2].startswith(OVER):
        write_files(target.corpus(tmp_path / "scratch")[0], tmp_path / "input")
    write_files(read_files(CORPUS / name), tmp_path / "input")
    if says is None:
        target.parse(tmp_path / "input")
    else:
        with pytest.raises((ValueError, OSError), match=says):
            target.parse(tmp_path / "input")
