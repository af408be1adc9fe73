"""Pickles read as data: a stack machine that builds descriptions and calls nothing.

A pickle is a program for a stack machine. This one knows the opcodes that describe data, resolves
no name to an object and imports nothing but :mod:`pickletools`, so there is nothing that a file
could make it call: ``GLOBAL`` pushes a :class:`Global` (two strings), ``REDUCE`` a :class:`Call`
of one (never performed), ``NEWOBJ`` and ``BUILD`` an :class:`Instance` with its state. A name
outside the caller's allow-list stops the reading at once.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from paramrob.errors import ModelError, UnsafeModelError, UnsupportedOperatorError

MAX_OPCODES = 2_000_000
_ORDERED_DICTS = ("collections.OrderedDict",)
_SETS = ("__builtin__.set", "builtins.set")

HOW_TO_SAVE = (
    "save the model another way: export it to ONNX (torch.onnx.export), or save "
    'torch.save(model.state_dict(), "model.pt") with a sidecar model.toml that lists [model] '
    "layers, or pass the module itself to paramrob.load in Python"
)


@dataclass(frozen=True)
class Global:
    """A name that the pickle asked for, never resolved."""

    module: str
    name: str

    @property
    def qualified(self) -> str:
        """The dotted name."""
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Call:
    """A call that the pickle asked for, never performed."""

    function: Global
    arguments: tuple[Any, ...]


@dataclass(eq=False)
class Instance:
    """An object that the pickle described: its class and state; nothing of it was built."""

    kind: Global
    state: object = None


@dataclass(eq=False)
class Persistent:
    """A reference to something outside the pickle (for torch: a storage or a class)."""

    identifier: object


class PickledDict(dict[Any, Any]):
    """An ``OrderedDict`` of the pickle; ``state`` holds attributes set on it."""

    state: object = None


@dataclass
class _Machine:
    """The state of one run: the stack, the marks in it and the memo."""

    allowed: Container[str]
    explained: Mapping[str, str]
    persistent: Callable[[object], object]
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ModelError("the pickle in the file is damaged: " + HOW_TO_SAVE)
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            raise ModelError("the pickle in the file is damaged: " + HOW_TO_SAVE)
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def top(self) -> Any:
        value = self.pop()
        self.stack.append(value)
        return value

    def find(self, module: object, name: object) -> Global:
        found = Global(str(module), str(name))
        for prefix, sentence in self.explained.items():
            if found.qualified not in self.allowed and found.qualified.startswith(prefix):
                raise UnsupportedOperatorError(f"the file holds {found.qualified!r}: {sentence}")
        if found.qualified not in self.allowed:
            raise UnsafeModelError(
                f"the file needs {found.qualified!r} from Python code, and reading it could run "
                f"that code; {HOW_TO_SAVE}"
            )
        return found


def read_pickle(
    stream: IO[bytes],
    allowed: Container[str],
    explained: Mapping[str, str] | None = None,
    persistent: Callable[[object], object] = Persistent,
) -> object:
    """Return what one pickle describes; the stream is left behind its last byte.

    Args:
        stream: a binary stream at the first byte of a pickle.
        allowed: the dotted names that the pickle may mention.
        explained: a better sentence for some others, by how their dotted names begin.
        persistent: what to make of a persistent identifier, which is data as described here.

    Raises:
        UnsupportedOperatorError: it mentions a name that ``explained`` explains.
        UnsafeModelError: it mentions another name.
        ModelError: it is damaged, too long, or uses opcodes that plain data does not need.
    """
    machine = _Machine(allowed, explained or {}, persistent)
    count = 0
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            count += 1
            if count > MAX_OPCODES:
                raise ModelError(f"the pickle is absurdly long for a module; {HOW_TO_SAVE}")
            if opcode.name == "STOP":
                return machine.pop()
            _step(machine, opcode.name, argument)
    except (ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
        raise ModelError(f"the pickle in the file is damaged ({error}); {HOW_TO_SAVE}") from error
    raise ModelError("the pickle in the file is truncated; copy or save the model again")


def _step(machine: _Machine, name: str, argument: Any) -> None:
    if name in _IGNORED:
        return
    if name in _LITERALS:
        machine.stack.append(argument)
    elif name in _CONSTANTS:
        machine.stack.append(_CONSTANTS[name]())
    elif name in _ACTIONS:
        _ACTIONS[name](machine, argument)
    elif name in ("INST", "OBJ", "EXT1", "EXT2", "EXT4"):
        called = str(argument).replace(" ", ".") if name == "INST" else f"an object ({name})"
        raise UnsafeModelError(f"the file asks Python to call {called}; {HOW_TO_SAVE}")
    else:
        raise ModelError(f"the file is no model that torch.save wrote (opcode {name}); save again")


def _check_key(key: object) -> object:
    # Tuples are no keys: hashing nested ones that share parts takes exponential time.
    if not isinstance(key, (str, int)):
        raise ModelError(f"a dict key of type {type(key).__name__} in the file; {HOW_TO_SAVE}")
    return key


def _set_items(machine: _Machine, items: list[Any]) -> None:
    target = machine.top()
    if not isinstance(target, dict) or len(items) % 2:
        raise ModelError(f"the file sets items on something that is no dict; {HOW_TO_SAVE}")
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[_check_key(key)] = value


def _append(machine: _Machine, items: list[Any]) -> None:
    target = machine.top()
    if not isinstance(target, list):
        raise ModelError(f"the file appends to something that is no list; {HOW_TO_SAVE}")
    target.extend(items)


def _make_dict(machine: _Machine, _: Any) -> None:
    items = machine.pop_mark()
    machine.stack.append({})
    _set_items(machine, items)


def _reduce(machine: _Machine, _: Any) -> None:
    arguments, function = machine.pop(), machine.pop()
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
        raise UnsafeModelError(f"the file asks Python to call a computed object; {HOW_TO_SAVE}")
    if function.qualified in _ORDERED_DICTS and not arguments:
        machine.stack.append(PickledDict())
    elif function.qualified in _SETS and len(arguments) == 1 and isinstance(arguments[0], list):
        machine.stack.append({_check_key(item) for item in arguments[0]})
    else:
        machine.stack.append(Call(function, arguments))


def _new_object(machine: _Machine, _: Any) -> None:
    arguments, kind = machine.pop(), machine.pop()
    if not isinstance(kind, Global) or arguments != ():
        raise UnsafeModelError(f"the file asks Python to build a computed object; {HOW_TO_SAVE}")
    machine.stack.append(Instance(kind))


def _build(machine: _Machine, _: Any) -> None:
    state, target = machine.pop(), machine.top()
    if not isinstance(target, (Instance, PickledDict)) or target.state is not None:
        what = target.function.qualified if isinstance(target, Call) else type(target).__name__
        raise UnsafeModelError(f"the file sets the state of {what!r}; {HOW_TO_SAVE}")
    target.state = state


def _push_global(machine: _Machine, argument: Any) -> None:
    module, _, name = str(argument).partition(" ")
    machine.stack.append(machine.find(module, name))


def _push_stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    machine.stack.append(machine.find(module, name))


def _push_tuple(size: int) -> Callable[[_Machine, Any], None]:
    def push(machine: _Machine, _: Any) -> None:
        items = [machine.pop() for _ in range(size)]
        machine.stack.append(tuple(reversed(items)))

    return push


def _set_one(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    _set_items(machine, [key, value])


def _append_one(machine: _Machine, _: Any) -> None:
    _append(machine, [machine.pop()])


_IGNORED = frozenset({"PROTO", "FRAME"})
_LITERALS = frozenset(
    {
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "BINFLOAT",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
    }
)
_CONSTANTS: Mapping[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_ACTIONS: Mapping[str, Callable[[_Machine, Any], object]] = {
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": lambda m, _: m.pop(),
    "POP_MARK": lambda m, _: m.pop_mark(),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_mark())),
    "TUPLE1": _push_tuple(1),
    "TUPLE2": _push_tuple(2),
    "TUPLE3": _push_tuple(3),
    "LIST": lambda m, _: m.stack.append(m.pop_mark()),
    "DICT": _make_dict,
    "APPEND": _append_one,
    "APPENDS": lambda m, _: _append(m, m.pop_mark()),
    "SETITEM": _set_one,
    "SETITEMS": lambda m, _: _set_items(m, m.pop_mark()),
    "GLOBAL": _push_global,
    "STACK_GLOBAL": _push_stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _new_object,
    "BUILD": _build,
    "BINPUT": lambda m, index: m.memo.__setitem__(index, m.top()),
    "LONG_BINPUT": lambda m, index: m.memo.__setitem__(index, m.top()),
    "MEMOIZE": lambda m, _: m.memo.__setitem__(len(m.memo), m.top()),
    "BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "LONG_BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "BINPERSID": lambda m, _: m.stack.append(m.persistent(m.pop())),
}
