"""Several hosts as one server: process 0 answers clients, and the others do what it does.

A program on the devices of all hosts runs when every process calls it, all in the same order. So
process 0 tells the others each call just before its own, by a broadcast over the devices.
"""

import contextlib
import itertools
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from flax import serialization
from jax.experimental import multihost_utils

from imagen_jax.diffusion.samplers import SamplerParams
from imagen_jax.imagen import Imagen
from imagen_jax.sample.description import describe_cascade
from imagen_jax.sample.sampler_inputs import EncodedText, SamplerInputs
from imagen_jax.sample.stage_batch import StageBatch
from imagen_jax.sample.stage_program import TrainedStage

HEARTBEAT = 1.0  # seconds between two messages while nothing is sampled: collectives can time out
ALIVE = 2  # batches that are sampled, or fetched, at once
SMALLEST = 1024  # bytes of a message: each size is a program, and a power of two

Message = dict[str, Any]


class LostHost(RuntimeError):
    """Another process of the server is gone, or failed, so that this one can't go on."""

    def __init__(self, error: Exception) -> None:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        super().__init__(
            f"the processes of this server have lost each other ({reason}): start the command on "
            "every host again"
        )


def are_several() -> bool:
    """True where the devices are those of several processes."""
    return jax.process_count() > 1


def check_same(imagen: Imagen, options: Sequence[object]) -> None:
    """Refuse hosts that would not compute the same. Errors: ValueError, on all of them."""
    if not are_several():
        return
    encoder = imagen.encoder.identity
    found = repr((describe_cascade(imagen.stages, imagen.stage_steps(), encoder), options))
    digest = np.uint32(zlib.crc32(found.encode()))
    if len({int(one) for one in np.ravel(multihost_utils.process_allgather(digest))}) > 1:
        raise ValueError(
            "the hosts have different cascades, options or versions of imagen_jax and jax: give "
            "the same command, with the same files and packages, on all of them"
        )


class SharedBatch(StageBatch):
    """A batch on the devices of all hosts, for process 0: the others follow each call.

    Errors of its methods: LostHost.
    """

    _numbers: ClassVar[Iterator[int]] = itertools.count()
    number: int

    @classmethod
    def start(
        cls,
        trained: TrainedStage,
        inputs: SamplerInputs,
        sampler_params: SamplerParams,
        *,
        size: tuple[int, int],
        batch_size: int,
    ) -> "SharedBatch":
        """Begin a batch on all hosts, as `StageBatch.start`."""
        number = next(cls._numbers)
        inputs = inputs.rows(np.arange(len(inputs.indices)))
        told = {
            "call": "start",
            "number": number,
            "stage": trained.stage.name,
            "inputs": _as_dict(inputs),
            "sampler_params": sampler_params._asdict(),
            "size": np.asarray(size),
            "batch_size": batch_size,
        }
        with _together():
            _send(told)
            begun = super().start(trained, inputs, sampler_params, size=size, batch_size=batch_size)
        assert isinstance(begun, SharedBatch)
        begun.number = number
        return begun

    def advance(self, steps: int = 1) -> None:
        """Give the next steps to the devices of all hosts."""
        with _together():
            _send({"call": "advance", "number": self.number, "steps": steps})
            super().advance(steps)

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """Fetch the images, as `StageBatch.images`."""
        with _together():
            _send({"call": "images", "number": self.number})
            return super().images()


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """What fails here failed on one process, perhaps: nobody knows what the others do."""
    try:
        yield
    except Exception as error:
        raise LostHost(error) from error


def send_heartbeat() -> None:
    """Tell the others that nothing is to be done: a collective that waits long can time out."""
    with _together():
        _send({"call": "heartbeat"})


def end() -> None:
    """Tell the others that the server has ended."""
    with _together():
        _send({"call": "end"})


def follow(stages: Sequence[TrainedStage]) -> None:
    """Do what process 0 does, until it ends. Errors: LostHost."""
    named = {trained.stage.name: trained for trained in stages}
    batches: dict[int, StageBatch] = {}
    with _together():
        while (told := _receive())["call"] != "end":
            match told["call"]:
                case "start":
                    batches[told["number"]] = _start(told, named[told["stage"]])
                    for done in list(batches)[:-ALIVE]:
                        del batches[done]
                case "advance":
                    batches[told["number"]].advance(told["steps"])
                case "images":
                    batches[told["number"]].images()


def _start(told: Message, trained: TrainedStage) -> StageBatch:
    height, width = map(int, told["size"])
    return StageBatch.start(
        trained,
        _from_dict(told["inputs"]),
        SamplerParams(**told["sampler_params"]),
        size=(height, width),
        batch_size=told["batch_size"],
    )


def _as_dict(inputs: SamplerInputs) -> Message:
    given = inputs._asdict()
    return {k: v._asdict() if isinstance(v, EncodedText) else v for k, v in given.items()}


def _from_dict(found: Message) -> SamplerInputs:
    return SamplerInputs(
        **{k: EncodedText(**v) if isinstance(v, dict) else v for k, v in found.items()}
    )


def _send(told: Message) -> None:
    """Send a message from process 0 to the others: its length, then its bytes."""
    content = serialization.msgpack_serialize(told)
    _broadcast(np.array([len(content)], np.int32))
    padded = np.zeros(_padded(len(content)), np.uint8)
    padded[: len(content)] = np.frombuffer(content, np.uint8)
    _broadcast(padded)


def _receive() -> Message:
    """Wait for the next message of process 0."""
    (length,) = _broadcast(np.zeros(1, np.int32)).tolist()
    content = _broadcast(np.zeros(_padded(length), np.uint8))[:length]
    return serialization.msgpack_restore(content.tobytes())


def _padded(length: int) -> int:
    return max(SMALLEST, 1 << (length - 1).bit_length())


def _broadcast(values: np.ndarray) -> np.ndarray:
    return np.asarray(multihost_utils.broadcast_one_to_all(values))
