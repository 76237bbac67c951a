"""Names that come from files can become part of a path, an argument or a line, or are refused."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import imagen_jax
from imagen_jax import cli, config
from imagen_jax.config.decode import find_function
from imagen_jax.config.names import check_line, check_name, escape_controls
from imagen_jax.io import run_dir

HOSTILE = Path(__file__).parents[1] / "fixtures" / "hostile" / "names" / "stage-name.config.json"
BASE = config.load("tiny")[0]


@pytest.mark.parametrize(
    "name", ["base64", "sr-256_v2.1", "_x", "größe 64", "é", "基礎", "a" * 128, "1"]
)
def test_a_name_is_taken(name: str) -> None:
    assert check_name(name, "it") == name


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "/x",
            "a\\b",
            ".hidden",
            "-rf",
            "a..b",
            " a",
            "a ",
            "a" * 129,
        ),
        *("a\n", "a\x1b[2J", "a\0", "a\u202eb", "\ud800", "a\u2028", "a.*", "a|b", "a(b)", "a$"),
        *("a,b", "a=b", "a:b", "a;b", "a'b", 'a"b', "a`b", "a&b", "a?", "a[0]", "a+", "^a", "~a"),
        *(None, 1, ["a"]),
    ],
)
def test_no_name_is_refused_with_the_rule(name: object) -> None:
    with pytest.raises(ValueError, match=r"^the key is .*which is no name: a name is 1 to 128"):
        check_name(name, "the key")


@given(st.text(max_size=20))
def test_what_is_taken_is_one_component_of_a_path(name: str) -> None:
    with contextlib.suppress(ValueError):
        check_name(name, "it")
        assert Path("folder", name).parent == Path("folder")
        assert Path(name).name == name
        assert name.isprintable()


@pytest.mark.parametrize(
    "name", ["/any/where/ABS", "../../../outside/X", "a\x1b]0;x\x07", "-o", ".*"]
)
def test_a_stage_has_a_name(name: str) -> None:
    document = json.loads(config.to_json(BASE))
    document["stage"]["name"] = name
    with pytest.raises(ValueError, match=r"stage: name is .* which is no name") as told:
        config.from_json(json.dumps(document))
    assert str(told.value).isprintable()


def test_a_run_whose_stage_would_be_written_elsewhere_is_refused(tmp_path: Path) -> None:
    shutil.copy(HOSTILE, tmp_path / run_dir.CONFIG)
    with pytest.raises(ValueError, match=r"config\.json: stage: name is '../../../outside/PWNED'"):
        imagen_jax.load(tmp_path)


@pytest.mark.parametrize(
    ("part", "field"), [("data", "dataset"), ("text", "encoder"), ("train", "wandb_project")]
)
def test_what_is_printed_has_no_control_characters(part: str, field: str) -> None:
    document = json.loads(config.to_json(BASE))
    document[part][field] = "/data/\x1b[2Jx"
    with pytest.raises(ValueError, match=f"{part}: {field} is .*control characters") as told:
        config.from_json(json.dumps(document))
    assert str(told.value).isprintable()
    assert check_line("/data/größe (1)/*.tar", "it") == "/data/größe (1)/*.tar"


def test_a_sentence_reaches_the_terminal_without_escapes(capsys) -> None:
    assert escape_controls("a\x1b[2J\r\nb\tc\u202e") == "a\\x1b[2J\\r\\nb\tc\\u202e"
    assert escape_controls("a:\n  b\n  c") == "a:\n  b\n  c"
    cli._say("no file \x1b[2J here")
    assert capsys.readouterr().err == "no file \\x1b[2J here\n"


def test_a_config_names_no_function_of_pythons_own_modules() -> None:
    assert find_function("shutil", "rmtree") is None
    assert find_function("imagen_jax.config.names", "check_name") is check_name
    document = json.loads(config.to_json(BASE))
    for curve in (
        {"_type": "Callable", "module": "shutil", "name": "rmtree"},
        {"_type": "Callable", "module": [], "name": 3},
        {"_type": "Callable", "module": "a\x1b", "name": "b"},
        {"_type": "Callable"},
    ):
        document["stage"]["diffusion"]["schedule"]["curve"] = curve
        with pytest.raises(ValueError, match="function"):
            config.from_json(json.dumps(document))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000, "nested more than 64 deep"),
        ('{"stage": ' * 65 + "1" + "}" * 65, "nested more than 64 deep"),
        ("9" * 5000, "is not JSON"),
        ('{"stage": ' + "9" * 400 + "}", "expected the fields of Stage"),
        ("[]", "expected the fields of Experiment, got"),
        ("nul", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_config_is_one_sentence(tmp_path: Path, text: str | bytes, says: str) -> None:
    file = tmp_path / run_dir.CONFIG
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=rf"config\.json: .*{says}") as told:
        run_dir.read_config(tmp_path)
    assert len(str(told.value)) < 600


def test_a_number_that_no_float_holds_is_refused() -> None:
    document = json.loads(config.to_json(BASE))
    document["stage"]["text_drop_rate"] = 10**400
    with pytest.raises(ValueError, match=r"config.stage.text_drop_rate: expected float, got 1000"):
        config.from_json(json.dumps(document))
