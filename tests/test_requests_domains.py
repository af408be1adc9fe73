from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from paramrob.domain import Box
from paramrob.errors import InputError
from paramrob.requests.domains import (
    DomainLike,
    assumed_box,
    bounding_box,
    parse_domain,
    parse_points,
)
from tests.small_models import bare_model, named_model, scaled_model

CATS = Box((Fraction("6.3"), Fraction(2)), (Fraction("20.5"), Fraction("3.9")))


@pytest.mark.parametrize(
    "value",
    [
        "6.3:20.5,2.0:3.9",
        " 6.3 : 20.5 , 2:3.90 ",
        [("6.3", "20.5"), (2, 3.9)],
        [(6.3, 20.5), (np.float64(2.0), Fraction(39, 10))],
        np.array([[6.3, 20.5], [2.0, 3.9]]),
        CATS,
    ],
)
def test_pairs_mean_their_decimals(value: DomainLike) -> None:
    assert parse_domain(value, named_model()) == CATS


@pytest.mark.parametrize("value", ["0:0.1", (0, 0.1), ("0", "0.1"), [(0, 0.1)]])
def test_one_pair_serves_every_input(value: DomainLike) -> None:
    expected = Box((Fraction(0),) * 2, (Fraction(1, 10),) * 2)
    assert parse_domain(value, bare_model()) == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("box.csv", "lower,upper\n6.3,20.5\n2.0,3.9\n"),
        ("box.csv", "6.3,20.5\r\n2.0,3.9\r\n"),
        ("box.csv", "name,lower,upper\nBwt,2.0,3.9\nHwt,6.3,20.5\n"),
        ("box.toml", "lower = [6.3, 2]\nupper = [20.5, '3.9']\n"),
    ],
)
def test_a_file_with_both_ends(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert parse_domain(str(tmp_path / name), named_model()) == CATS


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1:0,0:1", "above"),
        ("0:1,0:1,0:1", "takes 2 input"),
        ("0:nan", "nan"),
        ("0:1e400000", "not a finite decimal"),
        ("0:1:2,0:1", "neither a file nor pairs"),
        ("", "neither a file nor pairs"),
        ("nowhere.csv", "neither a file nor pairs"),
        ([(0, 1, 2)], "pair"),
        ([0, 1, 2], "pair"),
        (7, "expected pairs"),
        ([(0, None)], "expected a number"),
    ],
)
def test_a_bad_domain_is_refused(value: DomainLike, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_domain(value, named_model())


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("b.csv", "", "empty"),
        ("b.csv", "lower,upper\n", "no rows"),
        ("b.csv", "low,upper\n0,1\n", "did you mean 'lower'"),
        ("b.csv", "0,1,2\n0,1,2\n", "columns lower and upper"),
        ("b.csv", "lower,upper\n0,1\n0,NA\n", "line 3"),
        ("b.csv", "lower,upper\n0,1\n0\n", "line 3"),
        ("b.csv", "name,lower,upper\nBwt,0,1\nHtw,0,1\n", "did you mean 'Hwt'"),
        ("b.csv", "name,lower,upper\nBwt,0,1\nBwt,0,1\n", "once"),
        ("b.toml", "lower = [0]\nuper = [1]\n", "did you mean 'upper'"),
        ("b.toml", "lower = [0, 0]\n", "needs upper"),
        ("b.toml", "lower = [0, 0]\nupper = [1]\n", "2 lower ends, 1 upper"),
        ("b.toml", "lower = [0, nan]\nupper = [1, 1]\n", "nan"),
        ("b.toml", "lower = ", "not valid TOML"),
        ("b.csv", b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_a_bad_domain_file_is_refused(
    tmp_path: Path, name: str, text: str | bytes, message: str
) -> None:
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        parse_domain(tmp_path / name, named_model())


def test_the_sidecars_box_or_the_unit_box_that_is_said() -> None:
    assert assumed_box(named_model()) == (CATS, None)
    box, said = assumed_box(bare_model())
    assert box == Box((Fraction(0),) * 2, (Fraction(1),) * 2)
    assert said is not None
    assert "[0, 1]" in said


def test_the_bounding_box_uses_the_named_columns(tmp_path: Path) -> None:
    data = tmp_path / "cats.csv"
    data.write_text('"","Sex","Bwt","Hwt"\n"1","F",2.0,7.4\n"2","M",3.9,20.5\n"3","F",2.1,6.3\n')
    assert bounding_box(data, named_model()) == CATS


def test_the_bounding_box_of_bare_numbers(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text("0.1,-3\n0.3,1e2\n0.2,5\n")
    box = bounding_box(data, bare_model())
    assert box == Box((Fraction(1, 10), Fraction(-3)), (Fraction(3, 10), Fraction(100)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Sex,Hwt\nF,1\n", "no column 'Bwt'"),
        ("Hwt,Bwt\n1,nan\n", "line 2"),
        ("M,1,2\nF,2,3\n", "header"),
    ],
)
def test_a_bad_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        bounding_box(tmp_path / "d.csv", named_model())


def test_too_many_columns_without_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("a,b,c\n1,2,3\n")
    with pytest.raises(InputError, match="3 column"):
        bounding_box(tmp_path / "d.csv", bare_model())


@pytest.mark.parametrize("value", ["6.3,2.0", [6.3, 2.0], [[6.3, 2.0]], np.array([6.3, 2.0])])
def test_one_point(value: str | Sequence[float]) -> None:
    points, classes = parse_points(value, named_model())
    assert [p.x for p in points] == [(6.3, 2.0)]
    assert classes is None


def test_points_from_tables_follow_the_names(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("Bwt,Hwt\n2.0,6.3\n3.9,20.5\n")
    points, _ = parse_points(tmp_path / "p.csv", named_model())
    assert [p.x for p in points] == [(6.3, 2.0), (20.5, 3.9)]
    (tmp_path / "p.csv").write_text("6.3,2.0\n")
    assert parse_points(str(tmp_path / "p.csv"), bare_model())[0][0].x == (6.3, 2.0)


def test_points_and_classes_from_an_archive(tmp_path: Path) -> None:
    x = np.array([[0.1, 0.2], [0.3, 0.4]], dtype=np.float32)
    np.savez(tmp_path / "p.npz", x=x, y=np.array([1, 0], dtype=np.int8))
    points, classes = parse_points(str(tmp_path / "p.npz"), scaled_model())
    assert [p.x for p in points] == [tuple(map(float, row)) for row in x]
    assert classes == [1, 0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "empty"),
        ("1,2,3", "takes 2 input"),
        ("1,nan", "neither a file nor a point"),
        ("1,", "neither a file nor a point"),
        ("gone.csv", "neither a file nor a point"),
        (np.zeros((0, 2)), "no points"),
        ([], "takes 2 input"),
        ([[1, 2], [1]], "equal length"),
        ([1, float("inf")], "NaN or infinity"),
        (None, "equal length|takes 2"),
    ],
)
def test_bad_points_are_refused(value: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_points(value, named_model())


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.zeros((1, 2))}, "no array x"),
        ({"x": np.zeros((0, 2))}, "no points"),
        ({"x": np.zeros(2)}, "takes 2 input"),
        ({"x": np.zeros((1, 3))}, "3 numbers a point"),
        ({"x": np.array([[1.0, np.nan]])}, "NaN"),
        ({"x": np.array([["a", "b"]])}, "dtype"),
        ({"x": np.array([[{}, 1]], dtype=object)}, "without pickles"),
        ({"x": np.zeros((1, 2)), "y": np.zeros(1)}, "integer class"),
        ({"x": np.zeros((1, 2)), "y": np.zeros(2, dtype=int)}, "integer class"),
        ({"x": np.zeros((1, 2)), "y": np.array([2])}, "0..1"),
        ({"x": np.zeros((1, 2)), "y": np.array([-1])}, "0..1"),
    ],
)
def test_bad_archives_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "p.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        parse_points(str(tmp_path / "p.npz"), named_model())


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", x=np.zeros((4, 2)))
    whole = (tmp_path / "p.npz").read_bytes()
    for size in (0, 10, len(whole) // 2):
        (tmp_path / "p.npz").write_bytes(whole[:size])
        with pytest.raises(InputError, match="not a readable"):
            parse_points(str(tmp_path / "p.npz"), named_model())
