"""``--html`` on the command line."""

from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from paramrob.cli import main
from tests.page.reading import check_numbers, read

CATS = str(Path(__file__).parent.parent.parent / "case_studies" / "cats" / "model.pt")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_html_beside_json_on_standard_output(tmp_path: Path) -> None:
    page = tmp_path / "a page.html"
    result = invoke("check", CATS, "--delta", "0.01", "--html", page, "--json", "-", "-v")
    assert result.exit_code == 1
    found = read(page.read_text(encoding="utf-8"))
    check_numbers(found, json.loads(result.stdout))
    command = f"paramrob check {shlex.quote(CATS)} --delta 0.01 --json - --html '{page}'"
    assert command in found.text


def test_the_page_says_how_to_repeat_it(tmp_path: Path) -> None:
    page, witness = tmp_path / "p.html", tmp_path / "w.npz"
    options = ("--delta", "0.01", "--domain", "-1:20,2:3", "--no-presolve", "-q")
    invoke("estimate", CATS, "sigma", *options, "--html", page, "--witness", witness)
    text = page.read_text(encoding="utf-8")
    commands = [html.unescape(c) for c in re.findall(r'"command"><code>(.*?)</code>', text)]
    again, replay = (shlex.split(command) for command in commands)
    assert again[:4] == ["paramrob", "estimate", CATS, "sigma"]
    assert {"-1:20,2:3", "--no-presolve", str(witness)} <= set(again)
    assert "--quiet" not in again
    for command in (again, replay):
        assert invoke(*command[1:]).exit_code == 0


@pytest.mark.parametrize("path", ["/no/such/folder/p.html", "."])
def test_a_page_that_cannot_be_written(path: str) -> None:
    result = invoke("check", CATS, "--delta", "0.01", "--html", path)
    assert result.exit_code == 2
    assert "--html" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_name_that_is_no_text_is_shown_as_escapes(tmp_path: Path) -> None:
    odd = tmp_path / "caf\udce9.pt"
    try:
        odd.write_bytes(Path(CATS).read_bytes())
    except OSError:
        pytest.skip("this file system holds no such names")
    page = tmp_path / "p.html"
    result = invoke("check", odd, "--delta", "0.01", "--html", page, "-q")
    assert result.exit_code == 0
    assert "caf\\udce9.pt" in page.read_text(encoding="utf-8")
