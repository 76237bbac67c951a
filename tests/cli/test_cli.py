"""The command line: help that reads well, one sentence and a non-zero exit for bad input."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import jax
import pytest
from command_line import run_imagen

import imagen_jax
from imagen_jax import __main__ as command
from imagen_jax import cli, config
from imagen_jax.cli import train
from imagen_jax.parallel import backend
from imagen_jax.runtime import exit_codes, lease
from imagen_jax.text.offloaded import MissingTextEncoder
from imagen_jax.train import sharded_step

TRAIN = ("train", "tiny/base8", "--workdir", "w")
ENCODE = ("encode", "shapes/tiny", "--out", "o", "--encoder", "t5_1_1_tiny")


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_explains_itself(command: str, monkeypatch, capsys) -> None:
    assert run_imagen(monkeypatch, command, "--help") == 0
    out = capsys.readouterr().out
    assert f"usage: imagen {command}" in out
    assert len(out.splitlines()) > 8


@pytest.mark.parametrize("given", [None, "glibc.malloc.arena_max=1"])
def test_the_command_keeps_its_memory_where_none_says_otherwise(given: str | None) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in command.MEMORY}
    environment |= {"GLIBC_TUNABLES": given} if given else {}
    program = (
        "import os, sys, imagen_jax.cli, imagen_jax.__main__ as command\n"
        "found = lambda: [os.environ.get(name) for name in command.MEMORY]\n"
        "imagen_jax.cli.main = lambda: print(*found(), *sys.argv[1:])\n"
        "command.run()"
    )
    called = [sys.executable, "-c", program, "train", "a b"]
    done = subprocess.run(called, env=environment, capture_output=True, text=True, check=True)
    expected = [given] if given else command.MEMORY.values()
    assert done.stdout == " ".join(map(str, expected)) + " train a b\n"


def test_the_overview_names_every_command(monkeypatch, capsys) -> None:
    assert run_imagen(monkeypatch, "--help") == 0
    out = capsys.readouterr().out
    assert all(f"  {command} " in out for command in cli.COMMANDS)
    assert run_imagen(monkeypatch) == 2


def test_the_help_of_a_config_lists_its_fields(monkeypatch, capsys) -> None:
    assert run_imagen(monkeypatch, "train", "tiny/sr16", "--help") == 0
    out = capsys.readouterr().out
    for field in (
        "--optim.learning-rate",
        "--stage.model.stem-channels",
        "--workdir",
        "--max-restarts",
    ):
        assert field in out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("paint",), 2, "no command 'paint'"),
        (("train",), 1, "give a config first"),
        (("train", "nowhere", "--workdir", "w"), 1, "no config 'nowhere'"),
        (("train", "tiny/base8"), 2, "--workdir"),
        (("train", "tiny/base8", "--workdir", "w", "--optim.lr", "3"), 2, "--optim.lr"),
        (("train", "tiny/base8", "--workdir", "w", "--train.steps", "many"), 2, "many"),
        (("train", "tiny/base8", "--workdir", "w", "--stage.size", "9"), 2, "does not divide"),
        (("train", "tiny/base8", "--workdir", "w", "--data-dir", "no"), 1, "imagen encode"),
        (("train", "tiny/base8", "--workdir", "w", "--max-restarts", "-1"), 1, "0 or more"),
        (("train", "tiny/base8", "--workdir", "w", "--heartbeat-timeout", "1"), 1, "5 seconds"),
        (("sample", "nowhere", "a"), 1, "no cascade at nowhere"),
        (("sample", "nowhere"), 1, "no prompts"),
        (("sample", "nowhere", "a", "--sampler", "euler"), 1, "--sampler 'euler': wanted one of"),
        (("data", "build", "coco"), 1, "no dataset 'coco'"),
        (("data", "show", "shapes/tiny", "--data-dir", "no"), 1, "imagen data"),
        (("encode", "tiny", "--data-dir", "no"), 1, "imagen data"),
        (("encode", "tiny", "--crop", "random"), 2, "--crop needs --out"),
        (("encode", "tiny", "--min-side", "64"), 2, "--min-side needs --out"),
        ((*ENCODE, "--sizes", "64", "96"), 2, "--sizes 64 96: each has"),
        ((*ENCODE, "--sizes", "0"), 2, "--sizes (0,): must be"),
        ((*ENCODE, "--sizes", "64", "--max-aspect", "0.5"), 1, "max_aspect=0.5: must be"),
        (("eval", "nowhere"), 1, "no cascade at nowhere"),
        (("sample", "nowhere", "a"), 1, "the embedded cascades are: "),
        (("export", "nowhere", "--out", "o"), 1, "no cascade at nowhere"),
        (("export", "nowhere"), 2, "--out"),
        (("export", "nowhere", "--out", "o", "--dtype", "float8"), 2, "float8"),
        (("convert",), 1, "there is `imagen convert text PATH --out FOLDER`"),
        (("convert", "picture", "p", "--out", "o"), 1, "cannot convert 'picture'; there is"),
        (("convert", "text", "nowhere", "--out", "o"), 1, "no text encoder 'nowhere'"),
        (("convert", "text", "t5_1_1_tiny"), 2, "--out"),
        (("convert", "text", "t5_1_1_tiny", "--out", "."), 1, "exists; give another folder"),
        (("convert", "text", "t5_1_1_tiny", "--out", "o", "--dtype", "float8"), 2, "float8"),
        (("convert", "text", "gs://b/c", "--out", "o"), 1, "gs://b/c cannot be read"),
        (("convert", "text", "file:///c", "--out", "o"), 1, "file:///c: file:// is not read here"),
        (("convert", "text", "t5_1_1_tiny", "--out=s3://b/o"), 1, "--out s3://b/o: s3:// is not"),
        (("train", "tiny/base8", "--workdir", "s3://b/r"), 1, "--workdir s3://b/r: s3:// is not"),
        (("train", "tiny/base8", "--workdir=~nn/r"), 1, "--workdir ~nn/r: ~nn is nobody's home"),
        ((*TRAIN, "--data-dir", "gs://b/d"), 1, "--data-dir gs://b/d: gs:// is not read here"),
        ((*TRAIN, "--init-from", "hf://a/b"), 1, "--init-from hf://a/b: hf:// is not read here"),
        ((*TRAIN, "--text.encoder", "hf://a/b"), 1, "--text.encoder hf://a/b: hf:// is not"),
        (("train", "s3://b/c.py", "--workdir", "w"), 1, "s3://b/c.py: s3:// is not read here"),
        (("sample", "https://a/b", "a"), 1, "https://a/b: https:// is not read here: download it"),
        (("sample", "shapes", "a", "--out=s3://b/o"), 1, "--out s3://b/o: s3:// is not read here"),
        (("sample", "shapes", "a", "--low-res", "http://a/b"), 1, "--low-res http://a/b: http://"),
        (("eval", "s3://b/c"), 1, "s3://b/c: s3:// is not read here: mount it"),
        (("export", "shapes", "--out", "gs://b/o"), 1, "--out gs://b/o: gs:// is not read here"),
        (("data", "build", "shapes", "--data-dir", "s3://b"), 1, "--data-dir s3://b: s3:// is"),
        (("data", "check", "tars:s3://b/{0..9}.tar"), 1, "s3://b/{0..9}.tar: s3:// is not read"),
        (("data", "check", "folder:hf://a/b"), 1, "hf://a/b: hf:// is not read here: download"),
        (("data", "check", "parquet:https://a/b"), 1, "https://a/b: https:// is not read here"),
        (("data", "check", "mixture:~nn/b"), 1, "~nn/b: ~nn is nobody's home here"),
        (("plan", "--table", "s3://b/p.json"), 1, "s3://b/p.json: s3:// is not read here"),
    ],
)
def test_bad_input_gets_one_sentence(
    arguments: tuple[str, ...], code: int, says: str, monkeypatch, capsys, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_imagen(monkeypatch, *arguments) == code
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", sorted(set(cli.COMMANDS) - {"launch"}))
def test_64_bits_are_refused_by_every_command(command: str, monkeypatch, capsys) -> None:
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    assert run_imagen(monkeypatch, command, "x") == exit_codes.REFUSED
    assert "JAX_ENABLE_X64=1" in capsys.readouterr().err
    monkeypatch.setenv("JAX_ENABLE_X64", "0")
    run_imagen(monkeypatch, command, "--no-such-option")
    assert "JAX_ENABLE_X64" not in capsys.readouterr().err


def test_64_bits_are_refused_in_python_too() -> None:
    (experiment,) = config.load("tiny/base8")
    cascade = imagen_jax.Imagen((), MissingTextEncoder("nowhere"))
    with jax.enable_x64(True):
        for use in (
            lambda: imagen_jax.load("shapes"),
            lambda: cascade.sample(["a"]),
            lambda: sharded_step.build(experiment),
        ):
            with pytest.raises(ValueError, match="64-bit types are on"):
                use()


def test_a_second_painting_into_a_folder_is_refused(tmp_path: Path, monkeypatch, capsys) -> None:
    with lease.hold(tmp_path, command="imagen sample", option="--out"):
        assert (
            run_imagen(monkeypatch, "sample", "shapes", "a", "--out", str(tmp_path))
            == exit_codes.REFUSED
        )
    assert f"{tmp_path} is in use by process {os.getpid()} of" in capsys.readouterr().err


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize(
    "arguments", [("--help",), ("paint",), ("encode", "--help"), ("eval", "no")]
)
def test_a_reader_that_ends_first_ends_it_silently(
    arguments: tuple[str, ...], stream: str, monkeypatch, capsys
) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "w", buffering=1) as pipe:
        monkeypatch.setattr(sys, stream, pipe)
        code = run_imagen(monkeypatch, *arguments)
    written = stream == ("stdout" if "--help" in arguments else "stderr")
    assert (code == exit_codes.UNREAD) == written
    if written:
        assert "".join(capsys.readouterr()) == ""


def test_a_connection_that_breaks_is_no_such_reader(monkeypatch, capsys) -> None:
    def fail(arguments: list[str]) -> None:
        raise BrokenPipeError(32, "Broken pipe", "gs://bucket/run")

    monkeypatch.setattr(train, "run", fail)
    assert run_imagen(monkeypatch, "train") == exit_codes.REFUSED
    assert "Broken pipe: 'gs://bucket/run'" in capsys.readouterr().err


@pytest.mark.parametrize("closed", ["1", "2", "1 2"])
def test_outputs_that_are_closed_go_nowhere(closed: str, tmp_path: Path) -> None:
    program = [sys.executable, "-c", "from imagen_jax.cli import main; main()", "--help"]
    shell = f'exec "$@" {" ".join(f"{number}>&-" for number in closed.split())}'
    done = subprocess.run(["bash", "-c", shell, "bash", *program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("platform", ["cuda", "foo"])
def test_devices_that_are_not_here_are_one_sentence(platform: str) -> None:
    program = [
        sys.executable,
        "-c",
        "from imagen_jax.cli import main; main()",
        "encode",
        *ENCODE[1:],
    ]
    environment = {**os.environ, "JAX_PLATFORMS": platform}
    done = subprocess.run(
        [*program, "--sizes", "16"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == exit_codes.REFUSED
    assert f"imagen encode: error: JAX_PLATFORMS={platform}: jax cannot use" in done.stderr
    assert "here it finds" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_platform_without_plugin_is_known_without_its_frames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within a computation jax takes its own frames out of the traceback."""
    monkeypatch.setattr(backend, "_found", Mock(return_value="1 cpu"))
    monkeypatch.setattr(jax, "devices", Mock(side_effect=AssertionError))
    assert "jax cannot use that here (it has no plugin" in (
        backend.describe_failure(AssertionError()) or ""
    )
    monkeypatch.undo()
    assert backend.describe_failure(AssertionError()) is None


def test_warnings_to_the_user_are_sentences() -> None:
    ours = str(Path(cli.__file__).parents[1] / "imagen.py")
    said = cli._warning(UserWarning("no caption has the word"), UserWarning, ours, 3)
    assert said == "imagen: warning: no caption has the word\n"
    assert "x.py:3: DeprecationWarning: old" in cli._warning("old", DeprecationWarning, "x.py", 3)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("command", ["sample", "eval", "encode", "export"])
def test_what_is_printed_may_find_no_room(command: str, stream: str, monkeypatch, capsys) -> None:
    """The exit code says whether files were written; the other stream says what was lost."""

    def work(argv: list[str]) -> None:
        for _ in range(3):
            print("a line", file=getattr(sys, stream), flush=True)

    monkeypatch.setattr(f"imagen_jax.cli.{cli.MODULES.get(command, command)}.run", work)
    with monkeypatch.context() as patched, open("/dev/full", "w", buffering=1) as full:
        patched.setattr(sys, stream, full)
        assert run_imagen(patched, command) == 0
    said = "standard output: not written (No space left on device)"
    assert capsys.readouterr().err.count(said) == (stream == "stdout")


@pytest.mark.parametrize("closed", [">&- 2>&-", "2>/dev/full"])
def test_closed_outputs_change_no_exit_code(closed: str) -> None:
    """As services and cron jobs may have them."""
    program = f"{sys.executable} -c 'from imagen_jax.cli import main; main()'"
    for arguments, code in (
        ("--version", 0),
        ("nope", exit_codes.BAD_USAGE),
        ("train", exit_codes.REFUSED),
    ):
        command = f"{program} {arguments} {closed}"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
        assert done.returncode == code
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (
            (*TRAIN, "--data-dir", "no", "--max-restarts", "1"),
            1,
            "run `imagen encode tiny/base8 --data-dir no` first",
        ),
        (("data", "build", "shapes/tiny", "--workers", "2"), 0, "8 held_out"),
    ],
)
def test_nothing_of_the_current_folder_is_executed(
    arguments: tuple[str, ...], code: int, says: str, tmp_path: Path
) -> None:
    """Neither by the child of a supervisor nor by processes that share work."""
    here = tmp_path / "here"
    shutil.copytree(Path(__file__).parents[1] / "fixtures" / "faults" / "shadow", here)
    program = [sys.executable, "-P", "-c", "from imagen_jax.cli import main; main()"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [*program, *arguments], cwd=here, env=environment, capture_output=True, text=True
    )
    assert "my own random.py was run" not in done.stderr
    assert done.returncode == code
    assert says in done.stdout + done.stderr


def test_an_error_that_nobody_foresaw_has_a_code_of_its_own(monkeypatch, capsys) -> None:
    def fail(arguments: list[str]) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(train, "run", fail)
    assert run_imagen(monkeypatch, "train") == exit_codes.CRASHED
    assert "Traceback" in capsys.readouterr().err


def test_the_installed_command_answers() -> None:
    program = [sys.executable, "-c", "from imagen_jax.cli import main; main()", "--version"]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert done.stdout.strip().count(".") == 2
