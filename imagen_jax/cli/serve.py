"""`imagen serve CASCADE`: an HTTP server with OpenAI's images API and a page for browsers."""

import dataclasses
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from imagen_jax import config, extras
from imagen_jax.cli import devices, lora_option, parsing, sample_inputs, supervision
from imagen_jax.config.names import escape_controls

if TYPE_CHECKING:
    from imagen_jax import Imagen
    from imagen_jax.serve.engine import Engine
    from imagen_jax.serve.settings import Settings

USAGE = """Serve a trained cascade over HTTP.

POST /v1/images/generations and /v1/images/edits are those of OpenAI's API, and / is a page for
browsers. Requests of all clients share batches; an image depends on its own request and seed alone.
Ends at SIGTERM or Ctrl-C, when the requests that it has are answered. On a slice of several hosts
give the same command on all of them: process 0 answers, with the devices of all.
"""
NEEDED = ("starlette", "uvicorn", "sse_starlette", "prometheus_client", "python_multipart")


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of `imagen serve`."""

    cascade: tyro.conf.Positional[str]
    """Folder of a run, of the runs of a cascade or of an exported one, or the name of an embedded
    cascade, such as shapes."""
    host: str = "127.0.0.1"
    """Address to listen at; 127.0.0.1 is for this machine alone."""
    port: Annotated[int, config.Range(low=1, high=65535)] = 8000
    """Port to listen at."""
    token_file: Path | None = None
    """File with tokens, one a line; requests must carry one as Authorization: Bearer TOKEN."""
    allow_anyone: bool = False
    """Serve other machines without tokens: anyone who reaches the port may sample."""
    name: str = ""
    """Name of the model in the API; by default that of the cascade's folder."""
    sizes: tuple[str, ...] = ()
    """Sizes of images to offer, each HEIGHTxWIDTH, the first one by default; without any, the
    cascade's own."""
    batch_size: config.BatchSize | None = None
    """Images sampled at once; fewer are filled up, so that an image's bytes don't depend on the
    others. By default 1 on a CPU and 8 a device elsewhere."""
    max_queue: config.Images = 256
    """Images that may wait; a request for more gets status 429."""
    max_pixels: config.Pixels = 2**24
    """Pixels of all images of a request, and of an image that is sent."""
    max_steps: config.Steps = 250
    """Most steps that a request may ask for."""
    timeout: config.Positive = 600.0
    """Seconds after which a request that is not finished is given up."""
    drain: config.Positive = 60.0
    """Seconds that the requests have to be finished when the server ends."""
    warm: bool = False
    """Compile all programs before the first request."""

    lora: tuple[str, ...] = ()
    """Adapters to merge into a stage, each with its weight if not 1: a file, a PEFT folder or the
    folder of a run that trained them, such as runs/crescent or style.safetensors=0.7."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Dtype of the networks' products, in place of their configs'."""
    text_encoder: str = ""
    """Name or folder of the text encoder to use instead of the cascade's own."""
    text_encoder_dtype: Literal["float32", "bfloat16", "int8"] | None = None
    """Precision of the text encoder in place of the config's."""
    processes: Annotated[config.Processes, tyro.conf.arg(name="")] = config.Processes()
    """Several processes, such as the hosts of a TPU slice."""


def run(argv: list[str]) -> None:
    """Parse, load, compile, serve."""
    began = time.perf_counter()
    options = parsing.parse(Options, argv, prog="imagen serve", description=USAGE)
    for module in NEEDED:
        extras.require(module, "imagen serve needs")

    import jax

    from imagen_jax.parallel import distributed
    from imagen_jax.serve import access, server

    tokens = () if options.token_file is None else access.read_tokens(options.token_file)
    _check_host(options, is_public=not access.is_loopback(options.host), has_tokens=bool(tokens))
    if supervision.needs_child(options.processes):
        supervision.run_child("serve", argv, resumes="on every host, with an empty queue")
        return
    distributed.initialize(options.processes)
    if jax.process_index():
        _follow(options)
        return
    with server.open_socket(options.host, options.port) as opened:
        engine, limits = _make_engine(options, tokens)
        engine.start()
        host = f"[{options.host}]" if ":" in options.host else options.host
        ready = f"{limits.model} at http://{host}:{options.port}/"
        print(f"{ready} after {time.perf_counter() - began:.1f} s; Ctrl-C ends it", flush=True)
        _answer(engine, limits, opened, drain_seconds=options.drain)


def _make_engine(options: Options, tokens: tuple[str, ...] = ()) -> tuple["Engine", "Settings"]:
    """An engine that is not started, its programs compiled if asked: the same on all hosts."""
    from imagen_jax.serve import hosts
    from imagen_jax.serve.engine import Engine, default_batch_size
    from imagen_jax.serve.metrics import Metrics

    imagen = _load(options)
    devices.report_devices()
    limits = _settings(options, imagen, tokens)
    batch_size = options.batch_size or default_batch_size()
    hosts.check_same(imagen, [limits.sizes, batch_size, options.warm, options.dtype])
    engine = Engine(
        imagen,
        batch_size=batch_size,
        max_queue=options.max_queue,
        metrics=Metrics(),
    )
    for size in limits.sizes:
        engine.check_memory(size)
    if options.warm:
        engine.warm(limits.sizes, _report)
    return engine, limits


def _answer(
    engine: "Engine", limits: "Settings", opened: socket.socket, *, drain_seconds: float
) -> None:
    """Answer until a signal. Errors: hosts.LostHost."""
    from imagen_jax.serve import server
    from imagen_jax.serve.api import make_app

    server.log_to_stderr()
    app = make_app(engine, limits)
    try:
        server.make_server(app, engine, drain_seconds=drain_seconds).run([opened])
    finally:
        engine.stop()
    if engine.lost is not None:
        raise engine.lost


def _follow(options: Options) -> None:
    """Compute for process 0, which alone says when to end. Errors: hosts.LostHost."""
    from imagen_jax.serve import hosts

    engine, _ = _make_engine(options)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    hosts.follow(engine.imagen.stages)


def _check_host(options: Options, *, is_public: bool, has_tokens: bool) -> None:
    if is_public and not has_tokens and not options.allow_anyone:
        raise ValueError(
            f"--host {options.host} is for other machines, too: give --token-file FILE, or "
            "--allow-anyone if everybody who reaches the port may sample"
        )


def _load(options: Options) -> "Imagen":
    import imagen_jax

    imagen = imagen_jax.load(
        options.cascade,
        text_encoder=options.text_encoder,
        dtype=options.dtype,
        text_encoder_dtype=options.text_encoder_dtype,
    )
    imagen = lora_option.with_adapters(imagen, options.lora)
    return imagen


def _settings(options: Options, imagen: "Imagen", tokens: tuple[str, ...]) -> "Settings":
    from imagen_jax.serve.settings import Settings

    last = imagen.stages[-1].stage
    sizes = tuple(sample_inputs.read_size(text, "--sizes") for text in options.sizes)
    name = options.name or Path(options.cascade.rstrip("/")).name or "cascade"
    return Settings(
        model=escape_controls(name),
        sizes=sizes or ((last.size, last.size),),
        max_pixels=options.max_pixels,
        max_steps=options.max_steps,
        timeout=options.timeout,
        tokens=tokens,
    )


def _report(what: str, seconds: float) -> None:
    import jax

    if jax.process_index() == 0:
        print(f"compiled {what} in {seconds:.1f} s", flush=True)
