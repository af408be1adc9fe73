"""The sidecar: exact decimals, checked lengths, and near misses that are named."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from paramrob.errors import InputError
from paramrob.models.network import Network
from paramrob.models.sidecar import Sidecar, find_sidecar, read_sidecar
from paramrob.models.torch_module import from_torch

FULL = """
[model]
layers = ["linear:0", "relu"]
[input]
names = ["Hwt", "Bwt"]
units = ["g", "kg"]
shape = [2]
lower = [6.3, 2.0]
upper = [20.5, 3]
[output]
kind = "probability"
level = 0.1
labels = ["F", "M"]
"""


def network(inputs: int = 2, outputs: int = 1) -> Network:
    return from_torch(nn.Linear(inputs, outputs))


def written(tmp_path: Path, text: str) -> Sidecar:
    file = tmp_path / "model.toml"
    file.write_text(text, encoding="utf-8")
    return read_sidecar(file)


def test_everything_is_read_exactly(tmp_path: Path) -> None:
    sidecar = written(tmp_path, FULL)
    assert sidecar == Sidecar(
        path=str(tmp_path / "model.toml"),
        layers=("linear:0", "relu"),
        names=("Hwt", "Bwt"),
        units=("g", "kg"),
        shape=(2,),
        lower=(Fraction(63, 10), Fraction(2)),
        upper=(Fraction(41, 2), Fraction(3)),
        kind="probability",
        level=Fraction(1, 10),
        labels=("F", "M"),
    )
    info = sidecar.input_info(network())
    assert info.lower == (Fraction(63, 10), Fraction(2))
    assert sidecar.checked_labels(network()) == ("F", "M")


def test_an_empty_sidecar_says_nothing(tmp_path: Path) -> None:
    sidecar = written(tmp_path, "# nothing")
    assert sidecar == Sidecar(path=sidecar.path)
    assert sidecar.input_info(network()).names is None


@given(
    st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=-9999, max_value=9999)
)
def test_decimals_are_exact(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    spelled = f"{value:f}"
    folder = tmp_path_factory.mktemp("sidecar")
    sidecar = written(folder, f"[input]\nlower = [{spelled}]\nupper = ['{spelled}']")
    assert sidecar.lower == sidecar.upper == (Fraction(spelled),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[inptu]\nlower = [1]", r"unknown key \[inptu\]; did you mean \[input\]\?"),
        ("[input]\nlowr = [1]", r"unknown key input\.lowr; did you mean input\.lower\?"),
        ("[input]\nname = ['a']", r"did you mean input\.names\?"),
        ("[output]\nlable = ['a']", r"did you mean output\.labels\?"),
        ("[output]\nkinds = 'value'", r"did you mean output\.kind\?"),
        ("[input]\nlevel = 0.5", r"unknown key input\.level; did you mean .*level|lower"),
        ("level = 0.5", r"unknown key .*level.*; did you mean output\.level\?"),
        ("[zzzzzz]", "remove it"),
        ("[output]\nkind = 'probabilty'", "did you mean probability"),
        ("[output]\nkind = 3", "unknown key|kind"),
        ("[output]\nlevel = nan", "finite decimal"),
        ("[output]\nlevel = true", "expected a number"),
        ("[output]\nlevel = [0.5]", "expected a number"),
        ("[output]\nlevel = 2000-01-01", "expected a number"),
        ("[input]\nlower = [inf]\nupper = [inf]", "finite decimal"),
        ("[input]\nlower = 1\nupper = 2", "must be a list"),
        ("[input]\nlower = []\nupper = []", "must be a list"),
        ("[input]\nlower = [1]", "belong together"),
        ("[input]\nlower = [1]\nupper = [1, 2]", "1 entries, upper 2"),
        ("[input]\nlower = [1, 3]\nupper = [2, 2]", "entry 1: lower 3.0 is above upper 2.0"),
        ("[input]\nnames = [1]", "strings in quotes"),
        ("[input]\nshape = [2.0]", "positive whole numbers"),
        ("[input]\nshape = [0]", "positive whole numbers"),
        ("[input]\nshape = [true]", "positive whole numbers"),
        ("model = 3", "unknown key"),
        ("[input", "is no TOML"),
        ("a = 1\na = 2", "is no TOML"),
    ],
)
def test_errors(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        written(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names = ['a']", "names has 1 entries, the model takes 2"),
        ("units = ['a', 'b', 'c']", "units has 3"),
        ("lower = [1]\nupper = [2]", "lower has 1"),
        ("shape = [3]", "holds 3 numbers, the model takes 2"),
    ],
)
def test_lengths(tmp_path: Path, text: str, message: str) -> None:
    sidecar = written(tmp_path, f"[input]\n{text}")
    with pytest.raises(InputError, match=message):
        sidecar.input_info(network())


def test_labels_are_one_for_each_class(tmp_path: Path) -> None:
    sidecar = written(tmp_path, "[output]\nlabels = ['a', 'b', 'c']")
    assert sidecar.checked_labels(network(2, 3)) == ("a", "b", "c")
    with pytest.raises(InputError, match="2 classes"):
        sidecar.checked_labels(network(2, 1))


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_sidecar(tmp_path / "none.toml")
    with pytest.raises(InputError, match="cannot read"):
        read_sidecar(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    with pytest.raises(InputError, match="is no TOML"):
        read_sidecar(tmp_path / "latin.toml")


def test_the_sidecar_lies_beside_the_model(tmp_path: Path) -> None:
    assert find_sidecar(tmp_path / "model.pt") is None
    (tmp_path / "model.toml").touch()
    assert find_sidecar(str(tmp_path / "model.pt")) == tmp_path / "model.toml"
