"""The `imagen` command: one file per subcommand, imported when it is called."""

import importlib
import os
import sys
import traceback

from imagen_jax import exits

COMMANDS = {
    "train": "train a stage, or every stage of a cascade, from a config",
    "sample": "paint pictures for prompts with a trained cascade",
    "data": "build a dataset, look at one, or check any source",
    "encode": "encode a dataset's captions once, into (image, encoding) pairs",
    "plan": "say whether a config fits a TPU slice, and how fast it should go",
    "eval": "judge a cascade's pictures against their captions",
    "export": "write a cascade's weights and configs as a folder to ship",
    "convert": "make a text encoder of any checkpoint one folder of our own form",
    "launch": "run a command on Cloud TPU VMs, and keep it up",
    "study": "run one of the paper's claims at our scale",
}
MODULES = {"eval": "evaluate"}


def main() -> None:
    """Run `imagen COMMAND ...`; exits with 0 or a code of `imagen_jax.exits`."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        sys.exit(0 if arguments else exits.BAD_USAGE)
    if arguments[0] == "--version":
        import imagen_jax

        print(imagen_jax.__version__)
        return
    command, *rest = arguments
    if command not in COMMANDS:
        print(f"imagen: no command {command!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(exits.BAD_USAGE)
    if code := _run(command, rest):
        from imagen_jax import distributed

        distributed.leave(code)


def _run(command: str, arguments: list[str]) -> int:
    """The exit code; what went wrong is on stderr."""
    module = importlib.import_module(f"imagen_jax.cli.{MODULES.get(command, command)}")
    try:
        module.run(arguments)
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("IMAGEN_TRACEBACK"):
            traceback.print_exc()
        print(f"imagen {command}: error: {error}", file=sys.stderr)
        return exits.REFUSED
    except exits.Preempted as stop:
        print(f"imagen {command}: {stop}", file=sys.stderr)
        return exits.PREEMPTED
    except KeyboardInterrupt:
        print(f"imagen {command}: interrupted", file=sys.stderr)
        return exits.INTERRUPTED
    except Exception:
        traceback.print_exc()
        return exits.CRASHED
    return 0


def _help() -> str:
    lines = [f"  {name:<8}{summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: imagen COMMAND ...",
            "",
            "Imagen (arXiv:2205.11487) in JAX: text in, pictures out.",
            "",
            *lines,
            "",
            "`imagen COMMAND --help` tells more. IMAGEN_TRACEBACK=1 shows where an error arose.",
        ]
    )
