"""Witness files: exact round trips, nothing unpickled, nothing half written."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paramrob.domain import Box, Domain, Point
from paramrob.errors import InputError
from paramrob.models.model import InputInfo, Model, OutputInfo
from paramrob.models.network import Activation, Array, Dense, Input, Network, Node, Parameter
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork
from paramrob.properties import Property
from paramrob.replay import refutes, replay
from paramrob.verdict import Witness
from paramrob.witness_file import load_witness, save_witness
from paramrob.witness_meta import problem_from_meta, problem_meta
from tests.graphs import Graph

BOX = Box((Fraction("6.3"), Fraction(1, 3)), (Fraction("20.5"), Fraction(0.1) + 3))
POINT = Point((0.1, 5e-324))


def network(names: tuple[str, str] = ("0.weight", "0.bias")) -> Network:
    nodes = [
        Node("input", Input(), (), (2,)),
        Node("0", Dense(*names), ("input",), (1,)),
        Node("1", Activation("sigmoid"), ("0",), (1,)),
    ]
    weight = Parameter(names[0], np.array([[0.1, -1e-300]]))
    return Network(nodes, [weight, Parameter(names[1], np.array([-2.5]))])


def model(path: str | None = "model.pt", sha256: str | None = "ab" * 32) -> Model:
    return Model(network(), InputInfo(), OutputInfo("probability"), path, sha256)


def problem(of: Model, domain: Domain = BOX, claim: Property | None = None) -> Problem:
    perturbation = Perturbation(
        {"0.weight": Fraction("0.01")},
        {"0.weight": Fraction(1, 3), "0.bias": Fraction("1e-60")},
        "layers",
        {"file": "p.toml", "layers": ["0"]},
    )
    output = OutputInfo("probability", Fraction("0.7"), ("F", "M"))
    return Problem(of.network, UncertainNetwork(of.network, perturbation), domain, output, claim)


def witness(**parameters: Array) -> Witness:
    return Witness(np.array([0.1, -0.0]), parameters)


def test_round_trip_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    values = {"0.weight": np.array([[5e-324, -1e308]]), "a/b/../c.npy": np.array(-0.0)}
    meta: dict[str, object] = {"text": "ä\n", "list": [1, None, True], "deep": {"a": "1/3"}}
    save_witness(path, Witness(np.array([0.1, -0.0]), values), meta)
    x, parameters, back = load_witness(path)
    assert x.tobytes() == np.array([0.1, -0.0]).tobytes()
    assert {n: (v.shape, v.tobytes()) for n, v in parameters.items()} == {
        n: (v.shape, v.tobytes()) for n, v in values.items()
    }
    assert back == meta


def test_numpy_alone_reads_it(tmp_path: Path) -> None:
    save_witness(tmp_path / "w.npz", witness(w=np.array([1.0])), {"schema": 1})
    with np.load(tmp_path / "w.npz", allow_pickle=False) as archive:
        assert sorted(archive.files) == ["meta", "param/w", "x"]
        assert json.loads(str(archive["meta"])) == {"schema": 1}


@pytest.mark.parametrize("domain", [BOX, POINT])
@pytest.mark.parametrize(
    "claim",
    [
        None,
        Property("labels"),
        Property("confidence", epsilon=Fraction(1, 7)),
        Property("margin", sigma=Fraction("0.05")),
    ],
)
def test_the_problem_comes_back_exactly(domain: Domain, claim: Property | None) -> None:
    before = problem(model(), domain, claim)
    meta = json.loads(json.dumps(problem_meta(model(), before)))
    after = problem_from_meta(meta, model())
    assert (after.domain, after.property, after.output) == (domain, claim, before.output)
    for parameter in before.uncertain.network.parameters.values():
        for index in range(parameter.value.size):
            expected = before.uncertain.perturbation.interval(parameter).exact(index)
            assert after.uncertain.perturbation.interval(parameter).exact(index) == expected
    assert after.uncertain.perturbation.as_json() == before.uncertain.perturbation.as_json()
    assert problem_meta(model(), after) == meta


def test_a_saved_counterexample_still_refutes(tmp_path: Path) -> None:
    of = model()
    perturbation = Perturbation.uniform(of.network, Fraction("0.1"))
    uncertain = UncertainNetwork(of.network, perturbation)
    claim = problem(of, Box((Fraction(0),) * 2, (Fraction(30),) * 2), Property("labels"))
    claim = Problem(of.network, uncertain, claim.domain, OutputInfo("probability"), claim.property)
    found = replay(claim, np.array([24.0, 0.0]), {"0.weight": np.array([[0.15, 0.0]])})
    assert refutes(claim, found)
    save_witness(tmp_path / "w.npz", found, problem_meta(of, claim))
    x, parameters, meta = load_witness(tmp_path / "w.npz")
    again = problem_from_meta(meta, of)
    assert refutes(again, replay(again, x, parameters))


def test_refuses_another_model() -> None:
    meta = problem_meta(model(), problem(model()))
    with pytest.raises(InputError, match="sha256"):
        problem_from_meta(meta, model(sha256="cd" * 32))
    problem_from_meta(meta, model(sha256=None))  # an object in memory has none
    with pytest.raises(InputError, match="another network"):
        problem_meta(Model(network(("w", "b")), InputInfo(), model().output), problem(model()))


def changed(meta: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(meta))
    *tables, last = path.split("/")
    inner = copy
    for name in tables:
        inner = inner[name]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return copy


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema", 2),
        ("schema", ...),
        ("model", None),
        ("output", "logit"),
        ("output/kind", "certainty"),
        ("output/kind", "logits"),
        ("output/level", "1e999999999"),
        ("output/level", 0.5),
        ("output/level", "3"),
        ("output/labels", "FM"),
        ("domain", ...),
        ("domain/kind", "ball"),
        ("domain/lower", ["0", "1/0"]),
        ("domain/lower", ["0"]),
        ("domain/lower", ["0", "9" * 5000]),
        ("domain/lower", ["100", "0"]),
        ("domain/upper", None),
        ("perturbation/kind", 3),
        ("perturbation/absolute", {"2.weight": "0.1"}),
        ("perturbation/absolute", {"0.weight": "-0.1"}),
        ("perturbation/absolute", {"0.weight": "nan"}),
        ("perturbation/relative", []),
        ("property/name", "truth"),
        ("property/name", ["labels"]),
        ("property/epsilon", "0.1"),
    ],
)
def test_refuses_a_meta_that_makes_no_problem(path: str, value: object) -> None:
    meta = problem_meta(model(), problem(model(), claim=Property("labels")))
    with pytest.raises(InputError):
        problem_from_meta(changed(meta, path, value), model())


@pytest.mark.parametrize("x", [["0.5"], ["zzz", "0x1p0"], ["inf", "0x1p0"], ["0x1p99999", "0x1p0"]])
def test_refuses_a_point_that_is_none(x: list[str]) -> None:
    meta = problem_meta(model(), problem(model(), POINT))
    with pytest.raises(InputError):
        problem_from_meta(changed(meta, "domain/x", x), model())


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def crafted(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=True)
            archive.writestr(f"{name}.npy", member.getvalue())
    return buffer.getvalue()


def huge_header() -> bytes:
    buffer = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**15,)}
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, header)
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.npy", member.getvalue())
        archive.writestr("meta.npy", b"")
    return buffer.getvalue()


META = np.array("{}")
X = np.array([1.0])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        b"not a witness",
        crafted(x=np.array([Bomb()], dtype=object), meta=META),
        crafted(x=X, meta=np.array(Bomb(), dtype=object)),
        pickle.dumps(Bomb()),
        crafted(x=X),
        crafted(meta=META),
        crafted(x=X, meta=np.array("[]")),
        crafted(x=X, meta=np.array("{")),
        crafted(x=X, meta=np.array("[" * 100_000)),
        crafted(x=X, meta=np.array(["{}"])),
        crafted(x=X, meta=np.array(b"{}")),
        crafted(x=np.array([1]), meta=META),
        crafted(x=np.array([1j]), meta=META),
        crafted(x=np.array(["a"]), meta=META),
        crafted(x=X, meta=META, other=X),
        huge_header(),
    ],
    ids=range(18),
)
def test_refuses_foreign_and_crafted_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"w\.npz"):
        load_witness("w.npz")
    assert not Path("executed").exists()


def test_refuses_every_truncation_and_an_array_file(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    save_witness(path, witness(w=np.arange(9.0)), {"schema": 1})
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            load_witness(path)
    np.save(tmp_path / "x.npy", X)
    for name in ("x.npy", "missing.npz", "."):
        with pytest.raises(InputError):
            load_witness(tmp_path / name)


def test_refuses_a_member_that_is_no_array(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("x.npy", b"plain text")
    with pytest.raises(InputError, match="no array"):
        load_witness(tmp_path / "w.npz")


def test_unwritable_paths(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "no" / "w.npz", tmp_path, tmp_path / "file" / "w.npz", "/dev/null"):
        with pytest.raises(InputError):
            save_witness(path, witness(w=X), {})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_name_that_fits_in_no_archive_leaves_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="name"):
        save_witness(tmp_path / "w.npz", witness(**{name: X}), {})
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.npz"
    save_witness(path, witness(w=X), {"n": 1})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(InputError, match="No space left"):
        save_witness(path, witness(w=X), {"n": 2})
    monkeypatch.undo()
    assert load_witness(path)[2] == {"n": 1}
    save_witness(path, witness(w=X), {"n": 3})
    assert load_witness(path)[2] == {"n": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["w.npz"]


def test_a_witness_may_not_perturb_statistics() -> None:
    graph = Graph((2, 3), np.random.default_rng(0))
    graph.norm()
    normed, output = graph.network(), OutputInfo("value", None)
    model = Model(normed, InputInfo(), output)
    still, here = UncertainNetwork(normed, Perturbation({})), Point((0.0,) * 6)
    meta = problem_meta(model, Problem(normed, still, here, output))
    with pytest.raises(InputError, match="'v1', which the model keeps fixed"):
        problem_from_meta(changed(meta, "perturbation/absolute/v1", "1"), model)
    moved = UncertainNetwork(normed, Perturbation({"v1": Fraction(1)}))
    with pytest.raises(InputError, match="'v1' was counted, not trained"):
        Problem(normed, moved, here, output)
