"""The page of a heatmap: its numbers are those of its JSON, its pictures stand in it."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from paramrob.cli import main
from paramrob.models.model import InputInfo, Model, OutputInfo
from paramrob.page import render
from paramrob.page.maps import heatmap_page
from paramrob.plots.maps import Heatmap, MapAsked, compute
from paramrob.plots.tables import as_json
from paramrob.requests.build import Asked, build
from tests.page.chromium import needs_chromium, shown
from tests.page.reading import check_numbers, read
from tests.small_models import logistic, named_model

CATS = str(Path(__file__).parent.parent.parent / "case_studies" / "cats" / "model.pt")


def made(kind: str = "both") -> Heatmap:
    points = None if kind == "flips" else 50
    request = build(Asked("heatmap", delta="0.01"), named_model())
    return compute(request, MapAsked(kind=kind, points=points, open_area=0.02))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["both", "epsilon", "flips"])
def test_the_numbers_are_those_of_the_json(kind: str) -> None:
    heatmap = made(kind)
    found = read(render(heatmap_page(heatmap, "paramrob heatmap model.pt")))
    places = check_numbers(found, as_json(heatmap))
    assert ("flips.area.stable" in places) == (kind != "epsilon")
    assert ("epsilon.points" in places) == (kind != "flips")
    pictures = [img["src"] for img in found.tags("img")]
    assert len(pictures) == (2 if kind == "both" else 1)
    for source in pictures:
        assert base64.b64decode(source.split(",")[1]).startswith(b"<svg")
    assert all(img["alt"] for img in found.tags("img"))
    assert "paramrob heatmap model.pt" in found.text


def test_what_is_said_of_the_area_is_no_more_than_was_proved() -> None:
    heatmap = made()
    answer = heatmap_page(heatmap).answer
    area = as_json(heatmap)["flips"]["area"]
    numbers = [
        float(word) for word in answer.statement.replace("%", " % ").split() if _is_number(word)
    ]
    stable, flippable, left = numbers[:3]
    assert stable <= 100 * area["stable"] < stable + 0.01
    assert flippable <= 100 * area["flippable"] < flippable + 0.01
    assert left >= 100 * area["open"] > left - 0.01
    assert answer.tone == ("plain" if heatmap.is_closed else "open")


def test_free_inputs_are_part_of_the_statement() -> None:
    model = Model(logistic([1.0, -1.0, 0.5], 0.0), InputInfo(), OutputInfo("probability"))
    request = build(Asked("heatmap", delta="0.01"), model)
    heatmap = compute(request, MapAsked(kind="flips", x="x0", y="x1", open_area=0.1))
    answer = heatmap_page(heatmap).answer
    assert "whatever the free inputs are" in answer.statement
    assert "for some value of the free inputs" in answer.statement
    check_numbers(read(render(heatmap_page(heatmap))), as_json(heatmap))


def _is_number(word: str) -> bool:
    return word.replace(".", "", 1).isdigit()


def test_html_on_the_command_line(tmp_path: Path) -> None:
    page, report = tmp_path / "map.html", tmp_path / "map.json"
    options = ("--delta", "0.01", "--points", "20", "--html", str(page), "--json", str(report))
    result = CliRunner().invoke(main, ["heatmap", CATS, *options])
    assert result.exit_code == 0, result.stderr
    found = read(page.read_text(encoding="utf-8"))
    check_numbers(found, json.loads(report.read_text()))
    assert "--points 20" in found.text
    result = CliRunner().invoke(main, ["heatmap", CATS, *options[:2], "--html", str(tmp_path)])
    assert result.exit_code == 2


@needs_chromium
def test_a_browser_shows_the_pictures_without_complaint(tmp_path: Path) -> None:
    page = tmp_path / "map.html"
    page.write_text(render(heatmap_page(made())), encoding="utf-8")
    text, complaints = shown(page, tmp_path / "profile")
    assert complaints == []
    assert text.count("data:image/svg+xml") == 2
