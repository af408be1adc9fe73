"""``.pt2`` archives against the outputs of the modules that they were exported from."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import nn

from paramrob.errors import ModelError, ParamrobError, UnsupportedOperatorError
from paramrob.models.network import Network
from paramrob.models.pt2 import is_pt2, read_pt2
from tests.models.test_torch_file import check_outputs
from tests.models.test_torch_module import Functional, Shapes, Shared
from tests.models.torch_crafted import saved, small, unzipped, zipped

Json = dict[str, Any]


def exported(
    model: nn.Module,
    shape: tuple[int, ...],
    dynamic: bool = False,
    decomposed: bool = False,
) -> bytes:
    """Return what torch.export.save writes; ``shape`` includes the batch."""
    first = next(model.parameters())
    shapes = ({0: torch.export.Dim("batch", min=2)},) if dynamic else None
    example = (torch.zeros(shape, dtype=first.dtype),)
    program = torch.export.export(model.eval(), example, dynamic_shapes=shapes)
    target = io.BytesIO()
    torch.export.save(program.run_decompositions() if decomposed else program, target)
    return target.getvalue()


def everything() -> nn.Module:
    """Return all layers at once."""
    return nn.Sequential(
        nn.Linear(3, 4),
        nn.Sequential(nn.ReLU(), nn.Dropout(0.3), nn.Linear(4, 4, bias=False)),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(4, 4),
        nn.Tanh(),
        nn.Identity(),
        nn.Linear(4, 4),
        nn.Sigmoid(),
        nn.Linear(4, 3),
        nn.Softmax(dim=1),
    ).double()


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "everything": (everything, (2, 3)),
    "functional": (Functional, (2, 3)),
    "shapes": (Shapes, (2, 3, 4)),
    "shared": (Shared, (2, 2)),
}


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_outputs(case: str, dynamic: bool, decomposed: bool) -> None:
    make, shape = CASES[case]
    model = make()
    data = exported(model, shape, dynamic, decomposed)
    assert is_pt2(data)
    if case == "shapes" and decomposed:  # its first layer becomes a product over batch and rows
        with pytest.raises(UnsupportedOperatorError, match=r"batch axis|_operator"):
            read_pt2(data)
        return
    network = read_pt2(data)
    assert network.input_shape == shape[1:]
    if not dynamic:
        check_outputs(network, _Two(model))
    else:
        check_outputs(network, model)
    if case == "everything":
        paths = dict(model.named_parameters())
        assert set(network.parameters) == set(paths)
        assert {"0", "1.2", "4", "7", "9"} <= {node.name for node in network.nodes}
    if case == "shared":
        assert network.is_shared("first.weight")
        assert not network.is_shared("second.bias")


class _Two(nn.Module):
    """Runs a module two rows at a time, as many as it was exported for."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.model(rows) for rows in torch.split(x, 2)])


def test_single_inputs_without_a_batch() -> None:
    model = small()
    network = read_pt2(exported(model, (2,)))
    assert network.input_shape == (2,)
    assert network.output_shape == (1,)
    check_outputs(network, model)


def test_a_bare_linear_is_called_linear() -> None:
    network = read_pt2(exported(nn.Linear(2, 1), (2, 2)))
    assert [node.name for node in network.nodes] == ["input", "linear"]
    assert set(network.parameters) == {"linear.weight", "linear.bias"}


class _Two_Inputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x)
        return out


def test_several_inputs_are_refused() -> None:
    program = torch.export.export(_Two_Inputs(), (torch.zeros(2, 2), torch.zeros(2, 2)))
    target = io.BytesIO()
    torch.export.save(program, target)
    with pytest.raises(UnsupportedOperatorError, match=r"2 input\(s\)"):
        read_pt2(target.getvalue())


def test_unsupported_operators_are_named_with_their_node() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Mish())
    with pytest.raises(UnsupportedOperatorError, match="node 'mish': operator 'mish'"):
        read_pt2(exported(model, (2, 2)))


@pytest.fixture(scope="module")
def parts() -> dict[str, bytes]:
    return unzipped(exported(small(), (2, 2)))


def _changed(parts: dict[str, bytes], name: str, change: Callable[[Json], object]) -> bytes:
    content = json.loads(parts[name])
    change(content)
    return zipped(parts | {name: json.dumps(content).encode()})


GRAPH = "models/model.json"
INDEX = "data/weights/model_weights_config.json"


def _signature(content: Json) -> Json:
    result: Json = content["graph_module"]["signature"]
    return result


def _meta(content: Json) -> Json:
    result: Json = content["config"]["0.weight"]["tensor_meta"]
    return result


BROKEN: dict[str, tuple[str, Callable[[Json], object], str]] = {
    "no graph": (GRAPH, lambda c: c.pop("graph_module"), "not understood"),
    "nodes of another type": (GRAPH, lambda c: c["graph_module"].update(graph=3), "not understood"),
    "an unknown value": (
        GRAPH,
        lambda c: c["graph_module"]["graph"]["nodes"].pop(0),
        "not understood|must be",
    ),
    "a mutated buffer": (
        GRAPH,
        lambda c: _signature(c)["output_specs"].insert(0, {"buffer_mutation": {}}),
        "changes its buffers",
    ),
    "a custom object": (
        GRAPH,
        lambda c: _signature(c)["input_specs"].insert(
            0, {"custom_obj": {"arg": {"name": "o"}, "custom_obj_name": "o"}}
        ),
        "custom_obj",
    ),
    "an operator of another library": (
        GRAPH,
        lambda c: c["graph_module"]["graph"]["nodes"][1].update(target="torch.ops.mine.relu"),
        "torch.ops.mine.relu",
    ),
    "integer inputs": (
        GRAPH,
        lambda c: c["graph_module"]["graph"]["tensor_values"]["input"].update(dtype=5),
        "integers",
    ),
    "dynamic features": (
        GRAPH,
        lambda c: c["graph_module"]["graph"]["tensor_values"]["input"]["sizes"].__setitem__(
            1, {"as_expr": {"expr_str": "s"}}
        ),
        "fixed sizes",
    ),
    "an index of another type": (INDEX, lambda c: c.update(config=3), "not understood"),
    "a missing weight": (INDEX, lambda c: c["config"].pop("0.weight"), "lacks the numbers"),
    "a sparse weight": (INDEX, lambda c: _meta(c).update(layout=1), "not dense"),
    "another dtype": (INDEX, lambda c: _meta(c).update(dtype=29), "dtype number 29"),
    "too large": (INDEX, lambda c: _meta(c).update(sizes=[{"as_int": 9}, {"as_int": 2}]), "beyond"),
    "absurdly large": (
        INDEX,
        lambda c: _meta(c).update(sizes=[{"as_int": 2**62}, {"as_int": 2}]),
        "impossible shape",
    ),
    "negative strides": (
        INDEX,
        lambda c: _meta(c).update(strides=[{"as_int": -2}, {"as_int": 1}]),
        "impossible shape",
    ),
    "overlapping strides": (
        INDEX,
        lambda c: _meta(c).update(strides=[{"as_int": 1}, {"as_int": 1}]),
        "several places",
    ),
    "a path out of the archive": (
        INDEX,
        lambda c: c["config"]["0.weight"].update(path_name="../../../etc/passwd"),
        "lacks its part",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_archives_end_in_a_clear_error(case: str, parts: dict[str, bytes]) -> None:
    name, change, message = BROKEN[case]
    with pytest.raises(ModelError, match=message):
        read_pt2(_changed(parts, name, change))


def test_deep_and_damaged_json(parts: dict[str, bytes]) -> None:
    for content in (b"[" * 200_000, b"{", b"[]", b"\xff"):
        with pytest.raises(ModelError, match=r"damaged|no JSON object"):
            read_pt2(zipped(parts | {GRAPH: content}))
    with pytest.raises(ModelError, match="0 exported models"):
        read_pt2(zipped({"archive_format": "pt2"}))


def test_damaged_archives_end_in_a_clear_error_or_a_network(parts: dict[str, bytes]) -> None:
    draw = random.Random(2)
    for _ in range(300):
        name = draw.choice([GRAPH, INDEX])
        content = bytearray(parts[name])
        for _ in range(draw.randint(1, 3)):
            content[draw.randrange(len(content))] = draw.randrange(32, 127)
        with suppress(ParamrobError):
            assert isinstance(read_pt2(zipped(parts | {name: bytes(content)})), Network)


def test_only_exported_archives_are_taken_for_one() -> None:
    assert not is_pt2(saved(small()))
    assert not is_pt2(saved(small(), zip_format=False))
    assert is_pt2(zipped({"serialized_exported_program.json": "{}"}))
    with pytest.raises(ModelError, match=r"torch 2\.8"):
        read_pt2(zipped({"serialized_exported_program.json": "{}"}))
