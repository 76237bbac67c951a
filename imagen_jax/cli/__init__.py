"""The `imagen` command: one file per subcommand, imported when it is called."""

import contextlib
import importlib
import os
import select
import sys
import traceback
import warnings
from pathlib import Path
from typing import NoReturn, TextIO

from imagen_jax import limits
from imagen_jax.parallel import backend, hardware
from imagen_jax.runtime import exit_codes, late_signals

COMMANDS = {
    "train": "train a stage, or every stage of a cascade, from a config",
    "distill": "distil a trained stage, or cascade, into one that few steps sample",
    "finetune": "teach a trained cascade one subject from a few images of it",
    "sample": "sample images for prompts from a trained cascade",
    "serve": "serve a trained cascade over HTTP: an images API, and a page for browsers",
    "data": "build a dataset, look at one, or check any source",
    "encode": "encode a dataset's captions once, into (image, encoding) pairs",
    "plan": "say whether a config fits a TPU slice, and how fast it should go",
    "eval": "score a cascade's images against their captions",
    "score": "score any images by FID, CMMD, CLIP score, precision and recall",
    "export": "write a cascade's weights and configs as a folder to ship",
    "convert": "make other projects' weights one folder of our own form",
    "launch": "run a command on Cloud TPU VMs, and keep it up",
}
MODULES = {"eval": "evaluate"}
# Their work is in files: what they print need not be read, nor have room.
WRITERS = ("sample", "eval", "score", "encode", "export", "convert")
MOVED = {"study": "`python experiments/NAME.py` now, from a clone of the repository"}
PACKAGE = Path(__file__).parents[1]


def main() -> None:
    """Run `imagen COMMAND ...`; exits with 0 or a code of `imagen_jax.runtime.exit_codes`."""
    _open_closed()
    warnings.formatwarning = _warning
    try:
        try:
            _main(sys.argv[1:])
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not (unread := _unread()):
            raise
        for stream in unread:  # what is left in them goes nowhere, without a word
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        _leave(exit_codes.UNREAD)


def _warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """A warning of ours to the user as a sentence, of anything else with its place in the code."""
    if category is UserWarning and Path(filename).is_relative_to(PACKAGE):
        return f"imagen: warning: {_printable(str(message))}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def _open_closed() -> None:
    """Outputs that the shell closed (`>&-`) go nowhere, not into the file that is opened next."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            if null != number:
                os.close(null)
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


def _main(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        sys.exit(0 if arguments else exit_codes.BAD_USAGE)
    if arguments[0] == "--version":
        import imagen_jax

        print(imagen_jax.__version__)
        return
    command, *rest = arguments
    if command in MOVED:
        _say(f"imagen: {command} is {MOVED[command]}")
        sys.exit(exit_codes.REFUSED)
    if command not in COMMANDS:
        _say(f"imagen: no command {command!r}; there are {', '.join(COMMANDS)}")
        sys.exit(exit_codes.BAD_USAGE)
    if command != "launch":
        # Python puts the current folder first in its children, whose random.py would be run; not
        # for gcloud, which is Python, too, and finds its own parts so.
        os.environ.setdefault("PYTHONSAFEPATH", "1")
        if platforms := hardware.choose_platforms():
            os.environ["JAX_PLATFORMS"] = platforms
    if code := _run(command, rest):
        _leave(code)


def _run(command: str, arguments: list[str]) -> int:
    """The exit code; what went wrong is on stderr."""
    try:
        works = not {"-h", "--help"} & set(arguments)
        if works:
            backend.refuse_x64_variable(os.environ.get("JAX_ENABLE_X64"))
            limits.check_variables()
        module = importlib.import_module(f"imagen_jax.cli.{MODULES.get(command, command)}")
        with (
            _tolerant() if works and command in WRITERS else contextlib.nullcontext(),
            late_signals.end_late() if works and command != "launch" else contextlib.nullcontext(),
        ):
            module.run(arguments)
    except (ValueError, OSError, FloatingPointError) as error:
        if isinstance(error, BrokenPipeError) and _unread():
            raise
        return _refused(command, error, _sentence(error))
    except exit_codes.Preempted as stop:
        _say(f"imagen {command}: {stop}")
        return exit_codes.PREEMPTED
    except KeyboardInterrupt as stop:
        said = f": {stop}" if str(stop) else ""
        _say(f"imagen {command}: interrupted{said}")
        return exit_codes.INTERRUPTED
    except Exception as error:
        if reason := backend.describe_failure(error):
            return _refused(command, error, reason)
        traceback.print_exc()
        return exit_codes.CRASHED
    return 0


def _tolerant() -> contextlib.AbstractContextManager[None]:
    from imagen_jax.cli import console

    return console.tolerant()


def _say(sentence: str) -> None:
    """Tell the user, if stderr takes it; the exit code tells as well."""
    try:
        print(_printable(sentence), file=sys.stderr, flush=True)
    except BrokenPipeError:
        raise
    except OSError:
        from imagen_jax.cli import console

        console.settle(sys.stderr)


def _printable(sentence: str) -> str:
    """A sentence, bounded and without what a terminal obeys: strangers' texts may stand in it."""
    try:
        from imagen_jax.config import names, sentences
    except ValueError:  # of a limit's variable, which the sentence is about: it is ASCII
        return sentence
    return names.escape_controls(sentences.bound(sentence))


def _sentence(error: Exception) -> str:
    """What an error says; one that Python makes of the system's says neither place nor remedy."""
    if isinstance(error, ConnectionError) or not isinstance(error, OSError):
        return str(error)
    if error.strerror and error.filename is not None:
        return (
            f"{os.fsdecode(error.filename)}: {error.strerror}: look at the name, and whether you "
            "may read and write there"
        )
    return str(error)


def _refused(command: str, error: Exception, said: str) -> int:
    if os.environ.get("IMAGEN_TRACEBACK"):
        traceback.print_exception(error)
    _say(f"imagen {command}: error: {said}")
    return exit_codes.REFUSED


def _unread() -> list[TextIO]:
    """Return our outputs that are pipes whose reader has ended, such as `head`."""
    found = []
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # one that is no file
            waiting = select.poll()
            waiting.register(stream.fileno(), 0)
            if any(event & select.POLLERR for _, event in waiting.poll(0)):
                found.append(stream)
    return found


def _leave(code: int) -> NoReturn:
    from imagen_jax.parallel import distributed

    distributed.exit_process(code)


def _help() -> str:
    lines = [f"  {name:<10}{summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: imagen COMMAND ...",
            "",
            "Imagen (arXiv:2205.11487) in JAX: text in, images out.",
            "",
            *lines,
            "",
            "`imagen COMMAND --help` tells more. IMAGEN_TRACEBACK=1 shows where an error arose.",
        ]
    )
