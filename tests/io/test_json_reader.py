"""JSON is bounded before it is parsed, and what is none is one sentence."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagen_jax.io import json_reader

VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=80,
)


@given(VALUES)
def test_what_json_writes_is_read(value: object) -> None:
    assert json_reader.parse_json(json.dumps(value), where="it", remedy="write it again") == value


@given(st.text(st.sampled_from('[]{}"\\,:a1'), max_size=40))
def test_what_is_none_is_refused_as_json_refuses_it(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"it is not JSON .*: write it again"):
            json_reader.parse_json(text, where="it", remedy="write it again")
    else:
        assert json_reader.parse_json(text, where="it", remedy="-") == expected


@pytest.mark.parametrize("depth", [64, 65])
def test_depth_is_bounded_and_brackets_in_strings_are_none(depth: int) -> None:
    text = '{"a": ' * depth + json.dumps('[{"\\' * 100) + "}" * depth
    if depth == 64:
        json_reader.parse_object(text, where="it", remedy="-")
        return
    with pytest.raises(ValueError, match="nested more than 64 deep"):
        json_reader.parse_object(text, where="it", remedy="-")


@pytest.mark.parametrize(
    "text",
    ["[" * 10**6, '"\\' * 10**6, '["' * 10**6, "[]" * 10**6, '"' + "\\" * 10**6, '{"a":' * 10**5],
    ids=lambda text: text[:4],
)
def test_no_text_takes_long(text: str) -> None:
    start = time.process_time()
    with pytest.raises(ValueError, match="is not JSON"):
        json_reader.parse_object("[" * 65 + text, where="it", remedy="-")
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1]", "a list"),
        ('"x"', "a string"),
        ("3", "a number"),
        ("null", "null"),
        ("true", "true or false"),
    ],
)
def test_what_has_no_fields_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=rf"x\.json has no fields, but is {says}: copy it again"):
        json_reader.read_object(tmp_path / "x.json", remedy="copy it again")


def test_size_is_bounded_before_all_is_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(json_reader, "MAX_BYTES", 10)
    (tmp_path / "x.json").write_text('{"a": 123}')
    assert json_reader.read_object(tmp_path / "x.json", remedy="-") == {"a": 123}
    (tmp_path / "x.json").write_text('{"a": 1234}')
    with pytest.raises(ValueError, match=r"x\.json has more than 10 bytes of JSON: copy it"):
        json_reader.read_object(tmp_path / "x.json", remedy="copy it")
