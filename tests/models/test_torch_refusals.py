"""``.pt`` files that are refused: what may change the meaning, and damaged archives."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import nn

from paramrob.errors import ModelError, ParamrobError
from paramrob.models.network import Network
from paramrob.models.torch_archive import Archive
from paramrob.models.torch_file import read_torch
from tests.models.torch_crafted import saved, small, unzipped, with_pickle, zipped


def _set(path: int, name: str, value: object) -> Callable[[nn.Sequential], None]:
    def change(model: nn.Sequential) -> None:
        vars(model[path])[name] = value

    return change


def _expand(model: nn.Sequential) -> None:
    model[0].weight = nn.Parameter(torch.ones(1, 2).expand(3, 2))


def _buffer(model: nn.Sequential) -> None:
    model[0].register_buffer("mask", torch.ones(3, 2))


def _prune(model: nn.Sequential) -> None:
    from torch.nn.utils import prune

    prune.l1_unstructured(model[0], "weight", 0.5)  # type: ignore[no-untyped-call]


def _hook(model: nn.Sequential) -> None:
    model[0]._forward_hooks[1] = 5  # type: ignore[assignment]


def _dtype(dtype: torch.dtype) -> Callable[[nn.Sequential], None]:
    def change(model: nn.Sequential) -> None:
        value = torch.ones(3, 2).to(dtype)
        model[0].weight = nn.Parameter(value, requires_grad=False)

    return change


def _sparse(model: nn.Sequential) -> None:
    model[0].weight = nn.Parameter(torch.ones(3, 2).to_sparse(), requires_grad=False)


def _meta(model: nn.Sequential) -> None:
    model[0].weight = nn.Parameter(torch.ones(3, 2, device="meta"))


def _quantized(model: nn.Sequential) -> None:
    value = torch.quantize_per_tensor(torch.ones(3, 2), 0.1, 0, torch.qint8)
    model[0].weight = nn.Parameter(value, requires_grad=False)


def _value(value: float) -> Callable[[nn.Sequential], None]:
    def change(model: nn.Sequential) -> None:
        model.state_dict()["0.weight"][1, 1] = value

    return change


def _softmax(dim: int | None) -> Callable[[nn.Sequential], None]:
    return lambda model: model.add_module("4", nn.Softmax(dim))


def _nested(depth: int) -> object:
    value: object = ()
    for _ in range(depth):
        value = (value, value)
    return value


REFUSED: dict[str, tuple[Callable[[nn.Sequential], Any], str]] = {
    "in_features": (_set(0, "in_features", 5), "declares"),
    "a string as in_features": (_set(0, "in_features", "2"), "Linear layer that tells"),
    "an instance attribute": (_set(1, "forward", 3), "'forward'"),
    "a huge slope": (lambda m: m.add_module("4", nn.LeakyReLU(2**2000)), r"outside \[0, 1\]"),
    "nested in_features": (_set(0, "out_features", _nested(40)), "declares of type tuple"),
    "an unknown attribute": (_set(1, "extra", 3), "'extra'"),
    "a hook": (_hook, "hooks"),
    "hooks of the wrong type": (_set(1, "_forward_hooks", [1]), "hooks"),
    "a buffer": (_buffer, r"\['mask'\]"),
    "pruning": (_prune, "hooks|pruned|_rebuild|prune"),
    "no buffers": (_set(1, "_buffers", None), "lacks its _buffers"),
    "modules in a leaf": (_set(1, "_modules", {"a": nn.ReLU()}), r"\['a'\]"),
    "a missing bias": (_set(0, "_parameters", {"weight": None}), "bias"),
    "a weight that is no tensor": (
        _set(0, "_parameters", {"weight": 1, "bias": None}),
        "no tensor",
    ),
    "an expanded weight": (_expand, "one number at several places"),
    "integers": (_dtype(torch.int64), "dtype int64"),
    "bool": (_dtype(torch.bool), "dtype bool"),
    "complex": (_dtype(torch.complex64), "dtype complex64"),
    "float8": (_dtype(torch.float8_e4m3fn), "float8"),
    "sparse": (_sparse, "sparse"),
    "meta": (_meta, "meta|without numbers"),
    "quantized": (_quantized, "quantized"),
    "NaN": (_value(float("nan")), "NaN"),
    "infinity": (_value(float("-inf")), "NaN or infinite"),
    "softmax over the batch": (_softmax(0), "softmax over axis 0"),
    "softmax over no axis": (_softmax(3), "no axis 3"),
    "a negative slope": (lambda m: m.add_module("4", nn.LeakyReLU(-0.1)), r"outside \[0, 1\]"),
    "a slope that is none": (lambda m: m.add_module("4", nn.LeakyReLU("x")), "no number"),  # type: ignore[arg-type]
    "flatten with the batch": (lambda m: m.add_module("4", nn.Flatten(0)), "batch axis"),
    "a child that is none": (lambda m: m.register_module("4", None), "'4'"),
    "a wrong width": (lambda m: m.add_module("4", nn.Linear(2, 1)), "does not fit"),
    "an empty weight": (lambda m: m.add_module("4", nn.Linear(1, 0)), "empty"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", REFUSED)
def test_what_may_change_the_meaning_is_refused(case: str) -> None:
    change, message = REFUSED[case]
    model = small()
    change(model)
    with pytest.raises(ModelError, match=message):
        read_torch(saved(model))


@pytest.mark.parametrize("zip_format", [True, False])
def test_truncated_files_end_in_a_clear_error(zip_format: bool) -> None:
    data = saved(small(), zip_format)
    for length in sorted({*range(1, 40), *range(40, len(data) - 1, 53), len(data) - 1}):
        with pytest.raises(ModelError) as caught:
            read_torch(data[:length])
        assert str(caught.value).strip()


@pytest.mark.parametrize("zip_format", [True, False])
def test_damaged_files_end_in_a_clear_error_or_a_network(zip_format: bool) -> None:
    data = saved(small(), zip_format)
    draw = random.Random(1)
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        with suppress(ParamrobError):
            assert isinstance(read_torch(bytes(damaged)), Network)


def test_damaged_pickles_end_in_a_clear_error_or_a_network() -> None:
    entries = unzipped(saved(small()))
    draw = random.Random(3)
    for _ in range(400):
        content = bytearray(entries["data.pkl"])
        for _ in range(draw.randint(1, 3)):
            content[draw.randrange(len(content))] = draw.choice([draw.randrange(256), *b"RbQ}t)"])
        with suppress(ParamrobError):
            assert isinstance(read_torch(zipped(entries | {"data.pkl": bytes(content)})), Network)


def test_a_changed_storage_is_noticed() -> None:
    entries = unzipped(saved(small()))
    with pytest.raises(ModelError, match="instead of 6"):
        read_torch(zipped(entries | {"data/0": entries["data/0"][:-4]}))
    del entries["data/0"]
    with pytest.raises(ModelError, match="lacks its part"):
        read_torch(zipped(entries))


def test_other_zip_files_are_no_models() -> None:
    with pytest.raises(ModelError, match="no model"):
        read_torch(zipped({"readme.txt": "hello"}))
    with pytest.raises(ModelError, match="no model"):
        read_torch(with_pickle(b"\x80\x02N."))
    with pytest.raises(ModelError, match="lacks its part"):
        Archive(zipped({"a": "b"})).read("c")
