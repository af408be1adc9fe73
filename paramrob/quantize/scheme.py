"""How a network is quantized: everything that decides which numbers its parameters become."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from paramrob.errors import InputError
from paramrob.requests.suggest import nearest

Convention = Literal["onnxruntime", "litert", "torchao"]
CONVENTIONS: tuple[Convention, ...] = ("onnxruntime", "litert", "torchao")
FLOATS = ("float16", "bfloat16", "float8_e4m3", "float8_e5m2")
NARROWEST, WIDEST = 2, 16
"""Bits of integer formats."""
_NAMED = 3
"""Layers with formats of their own that a short name lists."""
_INTEGER = re.compile(r"(u?)int([1-9][0-9]?)\Z")
_GROUP = re.compile(r"group:([1-9][0-9]{0,8})\Z")


@dataclass(frozen=True)
class Scheme:
    """A quantization of weights: format, grid and the tool whose arithmetic chooses the scale.

    Attributes:
        format: ``int2`` .. ``int16`` or ``uint2`` .. ``uint16``, ``float16``, ``bfloat16``,
            ``float8_e4m3`` (the finite variant, e4m3fn) or ``float8_e5m2``.
        granularity: what shares a scale: ``tensor``, ``channel`` (an output channel) or
            ``group:N`` (N weights in a row of a dense layer; the last group may be shorter).
        symmetric: whether the zero point stays in the middle; by default it does where the
            format is signed.
        range: ``full``, or ``narrow``, which leaves out the lowest integer; by default what the
            convention does.
        bias: ``float``: biases keep their values; ``int32``: they are integers times input scale
            times weight scale where the input has a scale; by default float, and in a float
            format that format.
        keep: layers that stay as they are.
        layers: formats of single layers instead of ``format``, by name; integers beside integers
            and floats beside floats, every other setting the same. Given as a mapping or as
            pairs, kept as pairs.
        convention: whose arithmetic; see :mod:`paramrob.quantize.integers`.

    Raises:
        InputError: no such format, or settings that contradict each other.
    """

    format: str = "int8"
    granularity: str = "tensor"
    symmetric: bool | None = None
    range: str | None = None
    bias: str | None = None
    keep: tuple[str, ...] = ()
    convention: Convention = "onnxruntime"
    layers: tuple[tuple[str, str], ...] | Mapping[str, str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", tuple(self.keep))
        pairs = self.layers.items() if isinstance(self.layers, Mapping) else self.layers
        layers = tuple((str(name), str(form)) for name, form in pairs)
        object.__setattr__(self, "layers", layers)
        if self.format not in FLOATS and not self._integer():
            known = ("int8", "int4", "uint8", "uint4", *FLOATS)
            raise InputError(
                f"no format {self.format!r}; {nearest(self.format, known)} (int2 to int16, uint2 "
                "to uint16 and the floats)"
            )
        if self.convention not in CONVENTIONS:
            raise InputError(
                f"no convention {self.convention!r}; choose from {', '.join(CONVENTIONS)}"
            )
        if self.granularity not in ("tensor", "channel") and not _GROUP.match(self.granularity):
            raise InputError(
                f"no granularity {self.granularity!r}; give tensor, channel or group:N"
            )
        if self.range not in (None, "full", "narrow"):
            raise InputError(f"no range {self.range!r}; give full or narrow")
        if self.bias not in (None, "float", "int32"):
            raise InputError(f"no bias format {self.bias!r}; give float or int32")
        if self.is_float:
            self._check_float()
        else:
            self._check_integer()
        self._check_layers()

    @property
    def formats(self) -> dict[str, str]:
        """The formats of single layers, by name."""
        return dict(self.layers)

    def of_layer(self, name: str) -> Scheme:
        """Return the scheme of one layer, whose format may be its own."""
        return replace(self, format=self.formats.get(name, self.format), keep=(), layers=())

    @property
    def name(self) -> str:
        """The formats, in a word or a few."""
        if not self.layers:
            return self.format
        if len(self.layers) > _NAMED:
            return f"{self.format} (mixed widths)"
        return f"{self.format} ({', '.join(f'{n} {form}' for n, form in self.formats.items())})"

    @property
    def is_float(self) -> bool:
        """Whether the format is a floating-point one, which has no scale."""
        return self.format in FLOATS

    @property
    def is_symmetric(self) -> bool:
        """Whether the zero point stays in the middle of the integers."""
        return self.symmetric if self.symmetric is not None else not self.is_unsigned

    @property
    def is_unsigned(self) -> bool:
        """Whether the integers start at 0."""
        return self.format.startswith("u")

    @property
    def bits(self) -> int:
        """Width of an integer format."""
        found = self._integer()
        if found is None:
            raise InputError(f"{self.format} has no integers; ask for its numbers instead")
        return int(found[2])

    @property
    def group(self) -> int | None:
        """How many weights share a scale, where that is a group."""
        found = _GROUP.match(self.granularity)
        return None if found is None else int(found[1])

    @property
    def is_narrow(self) -> bool:
        """Whether the lowest integer is left out.

        Symmetric signed integers of 8 bits and more are narrow for ONNX Runtime
        (``ONNX_INT_TYPE_SYMMETRIC_RANGE``) and LiteRT; torchao uses every integer.
        """
        if self.range is not None:
            return self.range == "narrow"
        wide = self.is_symmetric and not self.is_unsigned and self.bits >= 8
        return wide and self.convention != "torchao"

    def _range_name(self) -> str:
        return "narrow" if self.is_narrow else "full"

    def integers(self) -> tuple[int, int]:
        """Return the lowest and the highest integer."""
        bits = self.bits
        if self.is_unsigned:
            return 0, 2**bits - 1
        return -(2 ** (bits - 1)) + int(self.is_narrow), 2 ** (bits - 1) - 1

    def words(self) -> str:
        """Return the scheme in a few words."""
        if self.layers:
            own = ", ".join(f"{name} in {form}" for name, form in self.formats.items())
            return f"{replace(self, layers=()).words()} with {own}"
        if self.is_float:
            return self.format
        parts = [
            f"one scale a {self.granularity}" if self.group is None else f"groups of {self.group}",
            "symmetric" if self.is_symmetric else "affine",
            f"integers {self.integers()[0]} to {self.integers()[1]}",
            f"scales as in {self.convention}",
        ]
        return f"{self.format} ({', '.join(parts)})"

    def as_json(self) -> dict[str, object]:
        """Return every setting, defaults filled in where all layers have one format."""
        said: dict[str, object] = {"format": self.format}
        if not self.is_float:
            said |= {
                "granularity": self.granularity,
                # Defaults differ from format to format: beside others they stay open (null).
                "symmetric": self.symmetric if self.layers else self.is_symmetric,
                "range": self.range if self.layers else self._range_name(),
                "convention": self.convention,
            }
        bias = self.bias or (self.format if self.is_float else "float")
        said |= {"bias": bias, "keep_float": list(self.keep)}
        return said | ({"layers": self.formats} if self.layers else {})

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Scheme:
        """Return the scheme that :meth:`as_json` described.

        Raises:
            InputError: the object is not one of its.
        """
        given = dict(said)
        if given.get("bias") == given.get("format"):
            given.pop("bias", None)
        keep, layers = given.pop("keep_float", []), given.pop("layers", {})
        names = {field.name for field in fields(cls)} - {"keep", "layers"}
        texts = all(isinstance(v, (str, bool, type(None))) for v in given.values())
        if not given.keys() <= names or not texts or not isinstance(keep, list):
            raise InputError("this is no description of a scheme; save the witness again")
        if not isinstance(given.get("format"), str) or not all(isinstance(k, str) for k in keep):
            raise InputError("this is no description of a scheme; save the witness again")
        if not isinstance(layers, Mapping) or not all(isinstance(v, str) for v in layers.values()):
            raise InputError("this is no description of a scheme; save the witness again")
        return cls(**given, keep=tuple(keep), layers=layers)

    def _integer(self) -> re.Match[str] | None:
        found = _INTEGER.match(self.format)
        return found if found is not None and NARROWEST <= int(found[2]) <= WIDEST else None

    def _check_layers(self) -> None:
        if len(self.formats) < len(self.layers):
            raise InputError("a layer has two formats; give each layer one")
        for name, form in self.formats.items():
            own = self.of_layer(name)
            if own.is_float != self.is_float:
                kind = "floats" if self.is_float else "integers"
                raise InputError(
                    f"layer {name!r} in {form} beside {self.format}: give {kind}, or keep the "
                    "layer as it is (--keep-float)"
                )
            if name in self.keep:
                raise InputError(f"layer {name!r} is kept and has a format; give one of the two")

    def _check_float(self) -> None:
        for what, given in (
            ("granularity", self.granularity != "tensor"),
            ("range", self.range is not None),
            ("symmetry", self.symmetric is not None),
            ("int32 bias", self.bias == "int32"),
        ):
            if given:
                raise InputError(f"{self.format} has no scale, so no {what}; leave it out")

    def _check_integer(self) -> None:
        if self.range == "narrow" and (self.is_unsigned or not self.is_symmetric):
            raise InputError(
                "a narrow range goes with symmetric signed integers; leave --range out"
            )
        if self.convention != "litert":
            return
        if self.is_unsigned or not self.is_symmetric:
            raise InputError(
                "LiteRT's weights are signed and symmetric; take int8, or another --convention"
            )
        if self.group is not None:
            raise InputError(
                "LiteRT's specification has no groups; take channel, or another --convention"
            )
