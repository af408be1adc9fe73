"""Networks from graphs of ATen operators: what torch.export, tracing and TorchScript produce.

The graph comes in as calls with named arguments, in order. A value is :class:`Data` (it depends
on the input), a :class:`Constant` tensor of the model, :data:`BATCH` (the unknown batch size), or
a plain number, list or string. :func:`paramrob.models.torch_operators.apply` turns each call into
nodes with the very same meaning in real arithmetic, or refuses it by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from paramrob.errors import ModelError, UnsupportedOperatorError
from paramrob.models.network import Network, Shape
from paramrob.models.torch_builder import Builder, Value
from paramrob.models.torch_tensor import StoredTensor


@dataclass(frozen=True)
class Data:
    """A value that depends on the input.

    ``storage`` is the memory that torch may hold it in, which views of it share, and ``version``
    how often that memory had been overwritten when the value was made.
    """

    value: Value
    storage: int
    version: int

    @property
    def shape(self) -> Shape:
        """Its shape without the batch axis."""
        return self.value.shape


@dataclass(frozen=True)
class Constant:
    """A parameter, buffer or constant tensor of the model, or its transpose."""

    tensor: StoredTensor
    name: str


@dataclass(frozen=True)
class Dtype:
    """A dtype by its name in torch."""

    name: str


@dataclass(frozen=True)
class Several:
    """The outputs of an operator that has several, of which only the first is a value here."""

    first: Data


class _Batch:
    """The unknown size of the batch axis."""

    def __repr__(self) -> str:
        return "batch"


BATCH: Final = _Batch()
UNUSED: Final = object()  # what a graph may hold but no operator here can use
Arguments = Mapping[str, object]


@dataclass(frozen=True)
class Call:
    """One node: its name, operator (``aten`` name without overload), arguments, module path.

    ``module`` is the path of the innermost module around it where paramrob knows its class.
    """

    name: str
    operator: str
    arguments: Arguments
    module: str | None = None

    @property
    def label(self) -> str:
        """What users call the layer."""
        return self.module or self.name

    @property
    def where(self) -> str:
        """What an error calls the node."""
        return f"node {self.name!r} ({self.operator})"


class GraphReader:
    """A network under construction from calls.

    Args:
        sizes: the input's sizes in the graph; the first is the batch, unless it is the only one.

    Raises:
        ModelError: another size than the first is unknown.
    """

    def __init__(self, sizes: Sequence[int | _Batch]) -> None:
        batched = len(sizes) > 1
        self.batch = sizes[0] if batched else None
        inner = tuple(sizes[1:] if batched else sizes)
        shape = tuple(n for n in inner if isinstance(n, int))
        if len(shape) != len(inner):
            raise ModelError(
                "the model was exported for inputs of any size; export it with fixed sizes (only "
                "the first axis, the batch, may be dynamic)"
            )
        self.offset = 1 if batched else 0
        self.builder = Builder(shape, self.offset)
        self._versions: list[int] = []
        self.input = self.new(self.builder.input)

    def new(self, value: Value) -> Data:
        """Return a value in memory of its own."""
        self._versions.append(0)
        return Data(value, len(self._versions) - 1, 0)

    def view(self, value: Value, of: Data) -> Data:
        """Return a value that torch may hold in the memory of another."""
        return Data(value, of.storage, of.version)

    def overwrite(self, call: Call, target: object, result: object) -> Data:
        """Return the result of an operator that overwrites ``target``.

        Whatever shares its memory changes with it; a later use of such a value is refused.

        Raises:
            UnsupportedOperatorError: it overwrites a parameter.
        """
        if not isinstance(target, Data) or not isinstance(result, Data):
            raise self.unsupported(call, "it overwrites a parameter; use the form without '_'")
        self._versions[target.storage] += 1
        return Data(result.value, target.storage, self._versions[target.storage])

    def finish(self, output: object) -> Network:
        """Return the network whose output is ``output``."""
        if not isinstance(output, Data) or self._is_stale(output):
            raise UnsupportedOperatorError(
                "the model's output is no value that depends on its input, or there are several; "
                "export a model with one output"
            )
        if output.value == self.builder.input:
            raise ModelError("the model returns its input unchanged; there is nothing to prove")
        return self.builder.build(output.value)

    def unsupported(self, call: Call, why: str) -> UnsupportedOperatorError:
        """Return the error for a call of a known operator in an unsupported way."""
        return UnsupportedOperatorError(f"{call.where}: {why}")

    def data(self, call: Call, name: str) -> Data:
        """Return an argument that must depend on the input."""
        return self.checked(call, name, call.arguments.get(name))

    def checked(self, call: Call, name: str, value: object) -> Data:
        """Return ``value``, which must depend on the input and still be what it was."""
        if not isinstance(value, Data):
            raise self.unsupported(call, f"its {name!r} must depend on the model's input")
        if self._is_stale(value):
            raise self.unsupported(
                call,
                f"its {name!r} was overwritten by an operator in place (its name ends in '_'); "
                "use inplace=False and x = x + y in the model",
            )
        return value

    def constant(self, call: Call, name: str) -> Constant:
        """Return an argument that must be a tensor of the model."""
        value = call.arguments.get(name)
        if not isinstance(value, Constant):
            raise self.unsupported(call, f"its {name!r} must be a parameter of the model")
        return value

    def parameter(self, call: Call, name: str) -> str | None:
        """Add an argument to the parameters and return its name; ``None`` where it is absent."""
        if call.arguments.get(name) is None:
            return None
        value = self.constant(call, name)
        return self.builder.table.add(value.name, value.tensor)

    def size(self, value: Data, axis: int) -> object:
        """Return one of torch's sizes of a value."""
        sizes = self.sizes(value)
        if not -len(sizes) <= axis < len(sizes):
            raise ModelError(f"the graph asks for axis {axis} of {len(sizes)}; export it again")
        return sizes[axis]

    def sizes(self, value: Data) -> list[object]:
        """Return torch's sizes of a value."""
        return [*([self.batch] if self.offset else []), *value.shape]

    def axes(self, call: Call, value: Data, axes: Sequence[object]) -> list[int]:
        """Return axes of a value, counted from 0 without the batch axis."""
        rank = len(value.shape) + self.offset
        good = [a for a in axes if type(a) is int and -rank <= a < rank]
        inner = [axis % rank - self.offset for axis in good]
        if len(inner) != len(axes) or any(axis < 0 for axis in inner):
            raise self.unsupported(call, "it touches the batch axis; keep the first axis")
        return inner

    def _is_stale(self, value: Data) -> bool:
        return self._versions[value.storage] != value.version
