"""``paramrob heatmap``: its files, its numbers, its exit codes, and wrong use."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import paramrob
from paramrob.cli import main
from paramrob.errors import InputError
from paramrob.plots.maps import KINDS, MapAsked
from tests.plots.pictures import CASES, CATS, LATER, cats_map

RELU = CASES / "athletes" / "relu.pt"


def invoke(*arguments: object) -> Result:
    """Run the command, with more time than anything here takes unless that is given."""
    given = ["heatmap", *(str(a) for a in arguments)]
    time = [] if "--timeout" in given else ["--timeout", str(LATER)]
    return CliRunner().invoke(main, [*given, *time])


def save_module(path: Path, inputs: int, outputs: int = 1) -> Path:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(inputs, 4), torch.nn.ReLU(), torch.nn.Linear(4, outputs)]
    torch.save(torch.nn.Sequential(*layers).double(), path)
    return path


def refused(result: Result, *words: str) -> None:
    """Assert exit 2 and one clear sentence on standard error, nothing on standard output."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("paramrob: ")
    for word in words:
        assert word in lines[0]


def test_one_command_writes_the_picture_and_its_numbers(tmp_path: Path) -> None:
    picture, table, report = (tmp_path / name for name in ("m.png", "m.csv", "m.json"))
    data = CASES / "cats" / "cats.csv"
    result = invoke(
        CATS, "--delta", "0.005", "--points", 60, "--data", data,
        "-o", picture, "--csv", table, "--json", report,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    for text in ("60 points, 0 of them open", "stable 95.", "sigma above", "written"):
        assert text in " ".join(result.stdout.split())
    read = json.loads(report.read_text())
    check_json(read)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    check_rows(rows, read)


def check_json(read: dict[str, Any]) -> None:
    assert read["command"] == "heatmap"
    assert read["perturbation"] == {"kind": "uniform", "delta": "0.005"}
    assert read["domain"] == {"kind": "box", "lower": [6.3, 2.0], "upper": [20.5, 3.9]}
    assert (read["x"]["name"], read["x"]["unit"], read["y"]["name"]) == ("Hwt", "g", "Bwt")
    assert read["closed"] is True
    assert read["epsilon"]["open"] == 0
    assert len(read["epsilon"]["upper"]) == 60
    sigma = read["sigma"]
    assert sigma["sigma_above"]["lower"] <= 0.0243551 <= sigma["sigma_above"]["upper"] + 1e-7
    assert sigma["sigma_below"]["lower"] <= 0.0213440 <= sigma["sigma_below"]["upper"] + 1e-7
    assert sum(read["flips"]["area"].values()) == pytest.approx(1)


def check_rows(rows: list[dict[str, str]], read: dict[str, Any]) -> None:
    points = [row for row in rows if row["kind"] == "epsilon"]
    cells = [row for row in rows if row["kind"] == "flips"]
    assert len(points) + len(cells) == len(rows)
    assert [float(row["epsilon_upper"]) for row in points] == read["epsilon"]["upper"]
    assert [float(row["Hwt_lower"]) for row in points] == read["epsilon"]["x"]
    assert all(row["Hwt_lower"] == row["Hwt_upper"] for row in points)
    assert [row["state"] for row in cells] == read["flips"]["state"]
    area = {"stable": 0.0, "flippable": 0.0, "open": 0.0}
    for row in cells:
        width = float(row["Hwt_upper"]) - float(row["Hwt_lower"])
        area[row["state"]] += width * (float(row["Bwt_upper"]) - float(row["Bwt_lower"]))
        assert (row["label"] in ("F", "M")) == (row["state"] == "stable")
    for state, value in area.items():
        assert value / (14.2 * 1.9) == pytest.approx(read["flips"]["area"][state])


def test_json_on_standard_output_stands_there_alone() -> None:
    result = invoke(CATS, "--delta", "0.005", "--kind", "epsilon", "--grid", 3, "--json", "-")
    assert result.exit_code == 0
    read = json.loads(result.stdout)
    assert read["flips"] is None
    assert read["sigma"] is None
    assert read["epsilon"]["grid"] == 3


def test_quiet_is_one_line_and_what_stays_open_is_exit_3(tmp_path: Path) -> None:
    done = invoke(
        RELU, "--delta", "0.01", "--kind", "flips", "-q", "--open-area", "0.2",
        "--csv", tmp_path / "m.csv",
    )  # fmt: skip
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 1
    hasty = invoke(
        RELU, "--delta", "0.01", "--kind", "flips", "--timeout", "1e-9", "--csv", tmp_path / "n.csv"
    )
    assert hasty.exit_code == 3
    assert "raise --timeout" in hasty.stdout
    assert "open 100 %" in hasty.stdout


def test_chosen_fixed_and_free_inputs(tmp_path: Path) -> None:
    model = save_module(tmp_path / "five.pt", 5)
    report = tmp_path / "r.json"
    result = invoke(
        model, "--delta", "0.01", "--x", "x3", "--y", "x1", "--fix", "x0=0.5", "--fix", "x2=0.25",
        "--points", 5, "--open-area", "0.2", "-o", tmp_path / "m.svg", "--json", report,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    read = json.loads(report.read_text())
    assert (read["x"]["index"], read["y"]["index"]) == (3, 1)
    assert read["fixed"] == {"x0": 0.5, "x2": 0.25}
    assert read["free"] == ["x4"]
    assert any("x4 free" in note for note in read["notes"])
    assert any("[0, 1]" in said for said in read["assumptions"])
    # Two inputs that are left need no names.
    rest = [part for i in (0, 2, 4) for part in ("--fix", f"x{i}=0.5")]
    result = invoke(
        model, "--delta", "0.01", *rest, "--kind", "epsilon", "--points", 5, "--json", "-"
    )
    assert json.loads(result.stdout)["free"] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ["nothing to write", "-o FILE.png"]),
        (("-o", "m.jpg"), ["m.jpg", ".png, .svg, .pdf"]),
        (("-o", "m"), ["use one of"]),
        (("-o", "no/such/m.png"), ["-o: no/such/m.png cannot be written"]),
        (("--csv", "no/m.csv"), ["--csv: no/m.csv cannot be written"]),
        (("--points", "5", "--grid", "5", "-o", "m.png"), ["--points", "--grid", "give one"]),
        (("--points", "0", "-o", "m.png"), ["--points makes 0 points"]),
        (("--grid", "1", "-o", "m.png"), ["--grid", "at least 2"]),
        (("--kind", "flips", "--points", "5", "-o", "m.png"), ["--points and --grid are for"]),
        (("--x", "Hwd", "-o", "m.png"), ["--x: no input 'Hwd'", "did you mean 'Hwt'"]),
        (("--x", "Hwt", "--y", "Hwt", "-o", "m.png"), ["--x and --y are both 'Hwt'"]),
        (("--fix", "Hwt=8", "-o", "m.png"), ["fewer than two inputs are left"]),
        (("--fix", "Hwt", "-o", "m.png"), ["give NAME=VALUE"]),
        (("--fix", "age=8", "-o", "m.png"), ["--fix: no input 'age'"]),
        (("--fix", "Hwt=heavy", "-o", "m.png"), ["--fix Hwt: 'heavy'"]),
        (("--domain", "5:5,1:2", "-o", "m.png"), ["input 'Hwt' has no width"]),
        (("--open-area", "2", "-o", "m.png"), ["--open-area", "between 0 and 1"]),
        (("--timeout", "-1", "-o", "m.png"), ["--timeout", "above 0"]),
        (("--tolerance", "0", "-o", "m.png"), ["--tolerance", "above 0"]),
        (("--data", "none.csv", "-o", "m.png"), ["--data: none.csv", "no such file"]),
    ],
)
def test_wrong_use_is_one_sentence(
    options: tuple[str, ...], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(invoke(CATS, "--delta", "0.005", *options), *words)
    assert list(tmp_path.iterdir()) == []


def test_models_with_too_few_or_too_many_inputs(tmp_path: Path) -> None:
    out = tmp_path / "m.png"
    one, five = (save_module(tmp_path / f"{n}.pt", n) for n in (1, 5))
    refused(invoke(one, "--delta", "0.01", "-o", out), "the model takes one")
    refused(invoke(five, "--delta", "0.01", "-o", out), "5 input(s)", "--x NAME", "--fix")
    refused(invoke(five, "--delta", "0.01", "--x", "x0", "-o", out), "choose them with --x")
    refused(
        invoke(five, "--delta", "0.01", "--x", "x0", "--y", "x1", "--fix", "x1=1", "-o", out),
        "'x1' is an axis and fixed",
    )
    refused(invoke(five, "-o", out), "--delta")
    assert not out.exists()


def test_values_have_no_labels_to_flip(tmp_path: Path) -> None:
    model = save_module(tmp_path / "value.pt", 2)
    options = ("--delta", "0.01", "--output", "value", "-o", tmp_path / "m.png", "--points", "5")
    result = invoke(model, *options, "--level", "0")
    assert result.exit_code == 0, result.output
    several = save_module(tmp_path / "several.pt", 2, 2)
    refused(invoke(several, *options), "no labels")
    assert invoke(several, *options, "--kind", "epsilon").exit_code == 0


def test_the_picture_is_drawn_without_a_screen_and_nothing_heavy_is_loaded_for_help() -> None:
    assert invoke("--help").exit_code == 0
    assert "matplotlib.pyplot" not in sys.modules


def test_python_and_command_agree() -> None:
    found = cats_map("epsilon")
    result = invoke(CATS, "--delta", "0.005", "--kind", "epsilon", "--points", 40, "--json", "-")
    assert found.epsilon is not None
    assert json.loads(result.stdout)["epsilon"]["upper"] == found.epsilon.upper.tolist()


def test_kinds_are_spelled_the_same_everywhere() -> None:
    from paramrob.cli_options import KINDS as SPELLED

    assert SPELLED == KINDS
    with pytest.raises(InputError, match="no kind"):
        MapAsked(kind="colour")  # type: ignore[arg-type]


def test_points_are_no_region() -> None:
    with pytest.raises(InputError, match="width"):
        paramrob.heatmap(CATS, delta="0.005", domain=[(7, 7), (2, 3)])


def test_data_rows_classes_and_gaps(tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    file.write_text("id,sex,height,weight\na,male,1.8,80\nb,female,1.7,60\nc,male,,70\n")
    found = paramrob.heatmap(RELU, delta="0.005", kind="epsilon", points=2, data=file)
    assert found.data is not None
    assert found.data.points.tolist() == [[1.8, 80.0], [1.7, 60.0]]
    assert found.data.classes == (1, 0)
    assert found.data.left_out == 1
    file.write_text("1.8,80\n1.7,60\n")
    found = paramrob.heatmap(RELU, delta="0.005", kind="epsilon", points=2, data=file)
    assert found.data is not None
    assert found.data.classes is None
    file.write_text("height,weight,y\n1.8,80,1\n1.7,60,0\n")
    found = paramrob.heatmap(RELU, delta="0.005", kind="epsilon", points=2, data=file)
    assert found.data is not None
    assert found.data.classes == (1, 0)
    file.write_text("height,weight\n1.8,heavy\n")
    with pytest.raises(InputError, match="'heavy' where a finite number belongs"):
        paramrob.heatmap(RELU, delta="0.005", kind="epsilon", points=2, data=file)


def test_level_and_epsilon_of_a_scaled_output() -> None:
    found = paramrob.heatmap(RELU, delta="0.005", level="0.8", kind="both", points=20)
    assert found.flips is not None
    assert found.levels is not None
    assert float(found.levels.lead.max()) <= 0.2
    assert np.isfinite(found.flips.lower).all()
