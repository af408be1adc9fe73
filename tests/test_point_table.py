"""The table of points: what is written is read again, and nothing that is not complete counts."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paramrob import point_table
from paramrob.errors import InputError
from paramrob.point_table import COLUMNS, PointTable, Row
from paramrob.requests.build import Asked, Request, build
from paramrob.verdict import Bracket, Outcome, Verdict
from tests.small_models import bare_model, classifier_model, logistic

POINTS = [[3.0, 0.0], [1.0, 0.0], [3.0, 4.0], [0.5, 0.0]]
PROVED = Outcome(Verdict.ROBUST, method="crown", engine_seconds=0.125)
OPEN = Outcome(Verdict.UNKNOWN, 'out of time, "again"; raise --timeout', engine_seconds=1e-7)


def request(**options: Any) -> Request:
    return build(Asked(**({"delta": "0.1", "at": POINTS} | options)), classifier_model())


def written(path: Path, *rows: tuple[int, Row], asked: Request | None = None) -> PointTable:
    table = PointTable(path, asked or request())
    for index, row in rows:
        table.add(index, row)
    table.close()
    return table


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    estimate = Outcome(None, brackets={"epsilon": Bracket(0.1, 0.30000000000000004)})
    asked = request(command="estimate", quantity="epsilon")
    written(path, (2, Row(estimate, None)), asked=asked)
    read = PointTable(path, asked).rows[2].outcome
    assert read.brackets == estimate.brackets
    assert read.verdict is None
    path.unlink()
    written(path, (0, Row(PROVED, 2)), (3, Row(OPEN, None)))
    rows = PointTable(path, request()).rows
    assert rows == {0: Row(PROVED, 2), 3: Row(OPEN, None)}


def test_nothing_is_written_before_the_first_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    PointTable(path, request())
    assert not path.exists()


def test_a_row_says_what_a_spreadsheet_needs(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    asked = replace(request(), classes=(0, 1, 1, 0))
    written(path, (1, Row(PROVED, 0)), (2, Row(OPEN, 1)), asked=asked)
    comment, *lines = path.read_text().splitlines()
    assert comment.startswith("#")
    first, second = csv.DictReader(io.StringIO("\n".join(lines)))
    assert [first[k] for k in ("index", "class", "label", "correct")] == ["1", "1", "0", "false"]
    assert [first[k] for k in ("verdict", "method", "solver")] == ["robust", "crown", "bounds"]
    assert (second["correct"], second["reason"]) == ("true", OPEN.reason)
    assert float(first["seconds"]) == 0.125


@pytest.mark.parametrize(
    "tail", ["1", "1,,,,robust,bounds,,0.1", "1,,,,robust,bounds,,0.1,,,,,,,,,,,", '1,,,,robust,"']
)
def test_a_row_that_was_cut_off_does_not_count(tmp_path: Path, tail: str) -> None:
    path = tmp_path / "rows.csv"
    written(path, (0, Row(PROVED, 0)))
    whole = path.read_text()
    path.write_text(whole + tail)
    table = PointTable(path, request())
    assert set(table.rows) == {0}
    table.add(3, Row(OPEN, 0))
    table.close()
    assert path.read_text().startswith(whole)
    assert set(PointTable(path, request()).rows) == {0, 3}
    assert list(tmp_path.iterdir()) == [path]


@settings(derandomize=True, database=None, deadline=None, max_examples=60)
@given(st.data())
def test_a_file_cut_anywhere_loses_no_complete_row(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("cut") / "rows.csv"
    rows = [(i, Row(o, i)) for i, o in ((2, OPEN), (0, PROVED), (1, OPEN))]
    written(path, *rows)
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:at])
    complete = max(whole[:at].count(b"\n") - 2, 0)
    table = PointTable(path, request())
    assert [*table.rows.items()] == rows[:complete]
    for index, row in rows[complete:]:
        table.add(index, row)
    table.close()
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "damage",
    [
        ("0,,,,robust", "0,,,,proved"),
        ("0,,,,robust", "zero,,,,robust"),
        ("0,,,,robust", "-1,,,,robust"),
        ("0,,,,robust", "0,,,,"),
        ("0.125", "nan"),
    ],
)
def test_a_row_that_says_nothing_sensible_does_not_count(
    tmp_path: Path, damage: tuple[str, str]
) -> None:
    path = tmp_path / "rows.csv"
    written(path, (0, Row(PROVED)), (1, Row(OPEN)))
    text = path.read_text()
    assert damage[0] in text
    path.write_text(text.replace(*damage, 1))
    assert set(PointTable(path, request()).rows) == {1}


def test_rows_beyond_a_limit_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    written(path, (0, Row(PROVED)), (3, Row(OPEN)))
    limited = PointTable(path, request(limit=2))
    assert set(limited.rows) == {0}
    limited.add(1, Row(PROVED))
    limited.close()
    assert set(PointTable(path, request()).rows) == {0, 1, 3}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"delta": "0.2"}, "another perturbation"),
        ({"leave_out": ("0",)}, "another perturbation"),
        ({"at": [*POINTS[:3], [0.5, 1.0]]}, "other points"),
        ({"at": POINTS[:3]}, "other points"),
        ({"epsilon": "0.1"}, "another property"),
        ({"sigma": "0.1"}, "another property"),
        ({"command": "estimate", "quantity": "epsilon"}, "another property"),
        ({"arithmetic": "float32"}, "another arithmetic"),
        ({"input_radius": "0"}, "another input radius"),
        ({"input_radius": "0.1"}, "another input radius"),
    ],
)
def test_another_question_is_refused(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    path = tmp_path / "rows.csv"
    written(path, (0, Row(PROVED)))
    before = path.read_bytes()
    with pytest.raises(InputError, match=said):
        PointTable(path, request(**options))
    assert path.read_bytes() == before


def test_rows_speak_of_the_arithmetic_that_was_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    asked = request(arithmetic="float16", accumulate="float32")
    written(path, (0, Row(replace(PROVED, semantics="float16"))), asked=asked)
    again = request(arithmetic="float16", accumulate="float32")
    assert PointTable(path, again).rows[0].outcome.semantics == "float16"
    for other in ({}, {"arithmetic": "float16", "accumulate": "float16"}):
        with pytest.raises(InputError, match="another arithmetic"):
            PointTable(path, request(**other))


def test_another_model_or_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.csv"
    model = bare_model()
    asked = Asked(delta="0.1", at=POINTS)
    written(path, (0, Row(PROVED)), asked=build(asked, model))
    changed = logistic([0.07577862, 1.18118408], -3.515180670000001)
    level = replace(model, output=replace(model.output, level=Fraction(1, 4)))
    for other in (replace(model, network=changed), level):
        with pytest.raises(InputError, match="another model"):
            PointTable(path, build(asked, other))
    moved = replace(model, path="elsewhere/model.pt", sha256="cd" * 32)
    assert set(PointTable(path, build(asked, moved)).rows) == {0}
    monkeypatch.setattr(point_table, "__version__", "99.0")
    with pytest.raises(InputError, match="another version"):
        PointTable(path, build(asked, model))


@pytest.mark.parametrize(
    "content",
    [
        b"1,2,3\n",
        b"# a comment\n1,2\n",
        b"# paramrob points {\n",
        b"# paramrob points 3\n",
        b"\xff",
    ],
)
def test_a_file_of_another_kind_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no table of points"):
        PointTable(path, request())
    assert path.read_bytes() == content


def test_other_columns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    written(path, (0, Row(PROVED)))
    path.write_text(path.read_text().replace(",".join(COLUMNS), "index,verdict"))
    with pytest.raises(InputError, match="other columns"):
        PointTable(path, request())


def test_a_box_has_no_rows(tmp_path: Path) -> None:
    asked = build(Asked(delta="0.1"), bare_model())
    with pytest.raises(InputError, match="--at"):
        PointTable(tmp_path / "rows.csv", asked)


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no device that is always full here")
    table = PointTable(tmp_path / "rows.csv", request())
    table.path = full
    with pytest.raises(InputError, match="run the same command again"):
        table.add(0, Row(PROVED))
