"""Pickles of PyTorch's state dicts, read without running anything that they ask for.

A pickle is a program for a stack machine. This one knows the instructions that numbers, texts,
lists, tuples, dictionaries and tensors need; of the functions and classes that a pickle may name it
knows those of `NAMES`, as names alone, and builds nothing else.
"""

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

DTYPES = {  # of PyTorch's storages: NumPy's names; bfloat16 is NumPy's by way of ml_dtypes
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
}
ORDERED, TENSOR = "collections.OrderedDict", "torch._utils._rebuild_tensor_v2"
NAMES = {ORDERED, TENSOR, *(f"torch.{name}" for name in DTYPES)}
MOST = 1 << 20  # instructions of a pickle; those of the largest state dict here have a tenth
_MARK = object()


class Name(NamedTuple):
    """A function or class that a pickle names."""

    path: str


class Storage(NamedTuple):
    """Numbers that lie outside of the pickle."""

    dtype: str  # NumPy's name
    key: str
    elements: int


class StoredTensor(NamedTuple):
    """A tensor: a view of a storage, in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass
class _Machine:
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def pop_to_mark(self) -> list[Any]:
        found = []
        while (top := self.stack.pop()) is not _MARK:
            found.append(top)
        return found[::-1]


def read(stream: io.BytesIO) -> Any:
    """Read one pickle from where a stream stands; the stream then stands behind it.

    Dictionaries, texts and numbers become Python's, tensors `StoredTensor`.
    Errors: ValueError for a pickle that is damaged, or that asks for anything else, by its name.
    """
    machine = _Machine()
    try:
        for number, (code, argument, _) in enumerate(pickletools.genops(stream)):
            if number > MOST:
                raise ValueError(f"it has more than {MOST:,} instructions")
            if code.name == "STOP":
                return machine.stack.pop()
            _run(machine, code.name, argument)
    except (IndexError, KeyError, TypeError, AttributeError, UnicodeError, OverflowError) as error:
        raise ValueError(f"its pickle is damaged ({type(error).__name__}: {error})") from error
    raise ValueError("its pickle has no end")


def _run(machine: _Machine, code: str, argument: Any) -> None:
    """Carry out one instruction. Errors: ValueError for one that is not known."""
    if code in _CONSTANTS:
        machine.stack.append(_CONSTANTS[code]())
    elif code in _LITERALS:
        machine.stack.append(argument)
    elif code in ("PROTO", "FRAME"):
        pass
    elif code in ("BINPUT", "LONG_BINPUT", "PUT"):
        machine.memo[int(argument)] = machine.stack[-1]
    elif code == "MEMOIZE":
        machine.memo[len(machine.memo)] = machine.stack[-1]
    elif code in ("BINGET", "LONG_BINGET", "GET"):
        machine.stack.append(machine.memo[int(argument)])
    elif code in _ACTIONS:
        _ACTIONS[code](machine)
    elif code == "GLOBAL":
        machine.stack.append(_named(argument.replace(" ", ".", 1)))
    else:
        raise ValueError(f"its pickle has the instruction {code}, which no state dict needs")


def _named(path: str) -> Name:
    if path not in NAMES:
        raise ValueError(f"its pickle names {path}, which no state dict needs, and was not run")
    return Name(path)


def _stack_global(machine: _Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if not (isinstance(name, str) and isinstance(module, str)):
        raise ValueError("its pickle names something by what is no text")
    machine.stack.append(_named(f"{module}.{name}"))


def _tuple(count: int) -> Callable[[_Machine], None]:
    def make(machine: _Machine) -> None:
        found = [machine.stack.pop() for _ in range(count)]
        machine.stack.append(tuple(found[::-1]))

    return make


def _marked_tuple(machine: _Machine) -> None:
    machine.stack.append(tuple(machine.pop_to_mark()))


def _set_items(machine: _Machine) -> None:
    found = machine.pop_to_mark()
    for key, value in zip(found[::2], found[1::2], strict=True):
        machine.stack[-1][_key(key)] = value


def _set_item(machine: _Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.stack[-1][_key(key)] = value


def _key(found: Any) -> str | int:
    """Return a key of a dictionary.

    A tuple that holds another twice, which holds another twice, and so forth is never done with
    being hashed or written, and a deep one ends the process.
    Errors: ValueError for what is no text and no number.
    """
    if not isinstance(found, str | int):
        raise ValueError("its pickle has a dictionary whose key is neither a text nor a number")
    return found


def _append(machine: _Machine) -> None:
    value = machine.stack.pop()
    machine.stack[-1].append(value)


def _appends(machine: _Machine) -> None:
    found = machine.pop_to_mark()
    machine.stack[-1].extend(found)


def _build(machine: _Machine) -> None:
    """Attributes of a state dict, such as versions of its modules, are left out."""
    machine.stack.pop()
    if not isinstance(machine.stack[-1], dict):
        raise ValueError("its pickle sets attributes of something that is no dictionary")


def _persistent(machine: _Machine) -> None:
    kind, name, key, _, count, *_ = machine.stack.pop()
    dtype = DTYPES.get(name.path.removeprefix("torch."))
    if kind != "storage" or dtype is None:
        raise ValueError(f"its pickle has a value of {name.path}, which is no storage")
    if not isinstance(key, str) or type(count) is not int or count < 0:
        raise ValueError("its pickle has a storage without a name or a size")
    machine.stack.append(Storage(dtype, key, count))


def _reduce(machine: _Machine) -> None:
    """An ordered dictionary or a tensor; nothing is called."""
    arguments, called = machine.stack.pop(), machine.stack.pop()
    if called == Name(ORDERED):
        if arguments:
            raise ValueError("its pickle makes a dictionary of something that is none")
        machine.stack.append({})
        return
    if called != Name(TENSOR):
        raise ValueError("its pickle calls what no state dict needs, which was not run")
    storage, offset, shape, strides, *_ = arguments
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or len(shape) != len(strides):
        raise ValueError("its pickle has a tensor without a storage of its own")
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("its pickle has a tensor whose shape is no numbers")
    machine.stack.append(StoredTensor(storage, offset, tuple(shape), tuple(strides)))


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "NONE": lambda: None,
}
_LITERALS = {
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BININT", "BININT1", "BININT2"),
    *("LONG1", "BINFLOAT", "SHORT_BINSTRING", "BINSTRING"),
}
_ACTIONS: dict[str, Callable[[_Machine], None]] = {
    "TUPLE": _marked_tuple,
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "APPEND": _append,
    "APPENDS": _appends,
    "BUILD": _build,
    "BINPERSID": _persistent,
    "REDUCE": _reduce,
    "STACK_GLOBAL": _stack_global,
}
