"""Pages in a real browser: no complaints, and the numbers of the JSON in what it shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from paramrob.cli import main
from tests.page.chromium import needs_chromium, shown
from tests.page.reading import Read, check_numbers

CATS = Path(__file__).parent.parent.parent / "case_studies" / "cats" / "model.pt"


def dom(page: Path, folder: Path) -> Read:
    text, complaints = shown(page, folder / "profile")
    assert complaints == []
    found = Read()
    found.feed(text)
    return found


@needs_chromium
@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("check", "--delta", "0.01"), "NOT ROBUST"),
        (("estimate", "epsilon", "--delta", "0.01"), "at most 0.05753"),
    ],
)
def test_a_browser_shows_the_numbers_of_the_json(
    command: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    page, report = tmp_path / "page.html", tmp_path / "report.json"
    name, *rest = command
    arguments = [name, str(CATS), *rest, "--html", str(page), "--json", str(report)]
    CliRunner().invoke(main, arguments)
    found = dom(page, tmp_path)
    places = check_numbers(found, json.loads(report.read_text()))
    assert {"brackets.epsilon.lower", "brackets.epsilon.upper", "witness.input.0"} <= places
    assert words in found.text
    for _, value, text in found.numbers:
        assert value == text


@needs_chromium
def test_a_complaint_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text('<!DOCTYPE html><html lang="en"><script>oops()</script></html>')
    _, complaints = shown(page, tmp_path / "profile")
    assert len(complaints) == 1
    policy = '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'">'
    page.write_text(f"<!DOCTYPE html><html>{policy}<script>document.title = 'ran'</script></html>")
    text, complaints = shown(page, tmp_path / "profile")
    assert "<title>ran" not in text
    assert complaints
