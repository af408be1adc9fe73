"""Tensors as torch stores them: a view (offset, sizes, strides) of a flat storage.

Two parameters that are the same view of one storage are one parameter; two different views that
overlap cannot be told apart by a box of independent intervals and are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from paramrob.errors import ModelError
from paramrob.models.network import Parameter, Shape

# numpy's code and size of an element; bfloat16 is widened by its bits.
DTYPES = {
    "float64": ("f8", 8),
    "float32": ("f4", 4),
    "float16": ("f2", 2),
    "bfloat16": ("u2", 2),
    "int64": ("i8", 8),
    "int32": ("i4", 4),
    "int16": ("i2", 2),
    "int8": ("i1", 1),
    "uint8": ("u1", 1),
}
FLOATS = ("float64", "float32", "float16", "bfloat16")


def decode(data: bytes, dtype: str, big_endian: bool = False) -> npt.NDArray[Any]:
    """Return the flat storage that ``data`` holds, in its own precision (bfloat16 as float32).

    Raises:
        ModelError: the dtype is none of ``DTYPES``, or the length does not fit it.
    """
    if dtype not in DTYPES:
        raise ModelError(
            f"the model holds a tensor of dtype {dtype}; paramrob reads {', '.join(FLOATS)}: "
            "convert it first, e.g. with model.float()"
        )
    code, size = DTYPES[dtype]
    if len(data) % size:
        raise ModelError("a tensor of the file is truncated; copy or save the model again")
    flat = np.frombuffer(data, dtype=(">" if big_endian else "<") + code)
    if dtype == "bfloat16":
        return (flat.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return flat


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A view of a storage.

    ``storage`` identifies the storage; ``flat`` returns it as an array, when it is needed.
    """

    storage: Hashable
    flat: Callable[[], npt.NDArray[Any]]
    dtype: str
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.sizes, *self.strides)
        good = all(type(n) is int and 0 <= n < 2**48 for n in numbers)
        if not good or len(self.sizes) != len(self.strides) or len(self.sizes) > 32:
            raise ModelError("a tensor of the file has an impossible shape; save the model again")
        if 0 in self.sizes:
            raise ModelError(f"a tensor of the model is empty (shape {self.sizes}); leave it out")
        span = 1
        axes = sorted((t, s) for s, t in zip(self.sizes, self.strides, strict=True) if s > 1)
        for stride, size in axes:
            if stride < span:
                raise ModelError(
                    f"a tensor of shape {self.sizes} uses one number at several places (strides "
                    f"{self.strides}); call .contiguous() on it before saving"
                )
            span += (size - 1) * stride

    @property
    def view(self) -> tuple[object, ...]:
        """What identifies the tensor: equal views are one tensor."""
        # The stride of an axis of length one means nothing.
        strides = tuple(t if s > 1 else 0 for s, t in zip(self.sizes, self.strides, strict=True))
        return (self.storage, self.dtype, self.offset, self.sizes, strides)

    @property
    def ends(self) -> tuple[int, int]:
        """The storage's index of the first element and the one behind the last."""
        steps = zip(self.sizes, self.strides, strict=True)
        return self.offset, self.offset + 1 + sum((size - 1) * stride for size, stride in steps)

    def transposed(self) -> StoredTensor:
        """Return the transposed matrix, still a view of the same storage."""
        return replace(self, sizes=self.sizes[::-1], strides=self.strides[::-1])

    def without_axis(self, axis: int) -> StoredTensor:
        """Return the tensor without an axis of length one."""
        keep = [i for i in range(len(self.sizes)) if i != axis]
        return replace(
            self,
            sizes=tuple(self.sizes[i] for i in keep),
            strides=tuple(self.strides[i] for i in keep),
        )

    def value(self) -> npt.NDArray[Any]:
        """Return the tensor's numbers in the precision they are stored in."""
        return self._strided(self.flat())

    def places(self) -> npt.NDArray[np.int64]:
        """Return the storage's indices that the tensor covers."""
        return self._strided(np.arange(self.flat().size, dtype=np.int64))

    def _strided(self, flat: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self.ends[1] > flat.size:
            raise ModelError("a tensor reaches beyond its data in the file; save the model again")
        steps = tuple(t * flat.itemsize for t in self.strides)
        return np.lib.stride_tricks.as_strided(
            flat[self.offset :], self.sizes, steps, writeable=False
        )


class ParameterTable:
    """The parameters of a network under construction, each tensor under one name."""

    def __init__(self) -> None:
        self._names: dict[tuple[object, ...], str] = {}
        self._by_storage: dict[Hashable, list[tuple[str, StoredTensor]]] = {}
        self._parameters: dict[str, Parameter] = {}
        self._shapes: dict[str, Shape] = {}

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All parameters so far."""
        return tuple(self._parameters.values())

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """The parameters' shapes by name."""
        return self._shapes

    def add(
        self, name: str, tensor: StoredTensor, integers: bool = False, fixed: bool = False
    ) -> str:
        """Return the name of ``tensor``: ``name``, or that of the same tensor added before.

        Args:
            name: what to call it.
            tensor: a weight, a bias or another constant.
            integers: whether it may hold integers (constants may, weights may not).
            fixed: whether no perturbation moves it (running statistics).

        Raises:
            ModelError: its dtype is not allowed, it overlaps another parameter in memory, or it
                is both a fixed and a movable one.
        """
        known = self._names.get(tensor.view)
        if known is not None:
            if self._parameters[known].fixed != fixed:
                raise ModelError(
                    f"parameter {known!r} is a running statistic at one place and a constant at "
                    "another; give one of the places a copy (.clone())"
                )
            return known
        if tensor.dtype not in (DTYPES if integers else FLOATS):
            raise ModelError(
                f"parameter {name!r} has dtype {tensor.dtype}; paramrob reads "
                f"{', '.join(FLOATS)}: convert it first, e.g. with model.float()"
            )
        value = tensor.value()
        neighbours = self._by_storage.setdefault(tensor.storage, [])
        for other, earlier in neighbours:
            if _overlap(earlier, tensor):
                raise ModelError(
                    f"parameters {other!r} and {name!r} share memory without being the same "
                    "tensor (a transposed or partial view), which a box of parameters cannot "
                    "express; save copies of them (.clone()) if they may differ"
                )
        self._put(name, np.asarray(value), tensor.dtype, fixed)
        self._names[tensor.view] = name
        neighbours.append((name, tensor))
        return name

    def add_constant(self, name: str, value: float) -> str:
        """Add a number that is no tensor of the model under a name of its own."""
        return self._put(name, np.array(value, dtype=np.float64), "float64")

    def _put(self, name: str, value: npt.NDArray[Any], dtype: str, fixed: bool = False) -> str:
        if name in self._parameters:
            raise ModelError(f"two different parameters are called {name!r}; rename one")
        self._parameters[name] = Parameter(name, value, dtype, fixed)
        self._shapes[name] = value.shape
        return name


def _overlap(a: StoredTensor, b: StoredTensor) -> bool:
    """Whether two views of one storage have an element in common."""
    if a.dtype != b.dtype:  # their indices count different things
        return True
    (a_low, a_high), (b_low, b_high) = a.ends, b.ends
    if a_high <= b_low or b_high <= a_low:
        return False
    return bool(np.intersect1d(a.places(), b.places()).size)
