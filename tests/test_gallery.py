"""The committed pictures, and the script that makes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from case_studies import gallery

ROOT = gallery.ROOT
LARGEST = 150_000


@pytest.mark.parametrize("name", [*gallery.MAPS, "report.png"])
def test_every_picture_is_there_and_small_and_shown(name: str) -> None:
    data = (gallery.PICTURES / name).read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) < LARGEST
    pages = [ROOT / "README.md", *(ROOT / "case_studies").glob("*/README.md")]
    assert any(f"pictures/{name})" in page.read_text() for page in pages)


def test_nothing_is_shown_that_is_not_made() -> None:
    made = {*gallery.MAPS, "report.png"}
    assert {path.name for path in gallery.PICTURES.iterdir()} == made


def test_without_chromium_the_report_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gallery, "browser", lambda: None)
    before = (gallery.PICTURES / "report.png").stat().st_mtime_ns
    gallery.report()
    assert "chromium is not installed" in capsys.readouterr().out
    assert (gallery.PICTURES / "report.png").stat().st_mtime_ns == before


def test_a_picture_with_few_colours_looks_the_same(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    chops = pytest.importorskip("PIL.ImageChops")
    picture = tmp_path / "p.png"
    with image.open(gallery.PICTURES / "report.png") as original:
        whole = original.convert("RGB")
    whole.save(picture)
    gallery.shrink(picture)
    with image.open(picture) as small:
        apart = chops.difference(whole, small.convert("RGB"))
    assert max(high for _, high in apart.getextrema()) <= 8


def test_a_command_that_fails_is_said() -> None:
    with pytest.raises(RuntimeError, match="--delta"):
        gallery.paramrob("check", "case_studies/cats/model.pt")
