"""The pictures: what stands in them, that nothing collides, and their files."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from paramrob.errors import InputError
from paramrob.plots import draw
from paramrob.plots.flip_map import FlipMap, State
from paramrob.plots.maps import Heatmap
from paramrob.plots.regions import _raster
from tests.plots.pictures import cats_map


def parts(drawn: Figure) -> list[SubFigure]:
    return [part for part in drawn.subfigs if isinstance(part, SubFigure)]


def legend_texts(part: SubFigure) -> list[str]:
    return [text.get_text() for legend in part.legends for text in legend.get_texts()]


def panel(part: SubFigure) -> Axes:
    return part.axes[0]


def test_both_panels_say_what_they_show() -> None:
    drawn = draw.figure(cats_map(data=True))
    above, below = parts(drawn)
    for part in (above, below):
        assert panel(part).get_xlabel() == "Hwt (g)"
        assert panel(part).get_ylabel() == "Bwt (kg)"
        assert panel(part).get_xlim() == (6.3, 20.5)
        assert panel(part).get_ylim() == (2.0, 3.9)
    assert panel(above).get_title("left") == "(a) largest change ε of the confidence"
    assert panel(below).get_title("left") == "(b) where the label can flip (% of the area)"
    assert above.axes[1].get_ylabel() == "ε (proved upper end)"
    assert legend_texts(above) == ["boundary as trained"]
    texts = legend_texts(below)
    assert [text.split(":")[0] for text in texts[:3]] == [
        "stable (proved)",
        "flippable (proved)",
        "open",
    ]
    assert texts[3:] == [
        "boundary as trained",
        "f = 0.5 + σ, σ = 0.0244",
        "f = 0.5 − σ, σ = 0.0214",
        "data, class F",
        "data, class M",
    ]
    assert "each within 0.005 of the trained value" in (drawn.get_suptitle())
    assert {text.get_text() for text in panel(below).texts} == {"F", "M"}


def test_the_legends_shares_never_say_more_than_was_proved() -> None:
    found = cats_map()
    assert found.flips is not None
    texts = legend_texts(parts(draw.figure(found, "flips"))[0])
    shown = [float(text.split(":")[1].removesuffix(" %")) / 100 for text in texts[:3]]
    assert shown[0] <= found.flips.share(State.STABLE)
    assert shown[1] <= found.flips.share(State.FLIPPABLE)
    assert shown[2] >= found.flips.share(State.OPEN)
    assert sum(shown) == pytest.approx(1, abs=2e-3)


def boxes(drawn: Figure) -> Iterator[tuple[str, Bbox]]:
    """Yield what each text covers, in pixels, tick labels as one a side."""
    renderer: RendererAgg = FigureCanvasAgg(drawn).get_renderer()  # type: ignore[no-untyped-call]
    drawn.draw(renderer)
    heading = drawn._suptitle  # type: ignore[attr-defined]
    yield "heading", heading.get_window_extent(renderer)
    for part in parts(drawn):
        for i, axes in enumerate(part.axes):
            titles = [text for text in axes.get_children() if isinstance(text, Text)]
            for text in titles:
                if text.get_text() and text not in axes.texts:
                    yield text.get_text(), text.get_window_extent(renderer)
            for side in (axes.xaxis, axes.yaxis):
                if side.get_label().get_text():
                    yield side.get_label().get_text(), side.get_label().get_window_extent(renderer)
            yield f"axes {i}", axes.get_window_extent(renderer)
        for legend in part.legends:
            yield "legend", legend.get_window_extent(renderer)


@pytest.mark.parametrize("data", [False, True])
def test_nothing_collides_or_leaves_the_picture(data: bool) -> None:
    drawn = draw.figure(cats_map(data=data))
    found = list(boxes(drawn))
    assert len(found) > 10
    for i, (name, box) in enumerate(found):
        assert drawn.bbox.x0 <= box.x0, name
        assert box.x1 <= drawn.bbox.x1, name
        assert drawn.bbox.y0 <= box.y0, name
        assert box.y1 <= drawn.bbox.y1, name
        for other, second in found[:i]:
            assert not box.overlaps(second), f"{name} covers {other}"


def test_a_long_heading_and_long_names_stay_inside() -> None:
    found = cats_map(data=True)
    model = replace(
        found.request.model,
        path="folder/a-model-with-quite-a-long-file-name-for-a-heading.onnx",
        output=replace(found.request.model.output, labels=("no heart trouble", "heart trouble")),
    )
    drawn = draw.figure(replace(found, request=replace(found.request, model=model)))
    for name, box in boxes(drawn):
        assert box.x1 <= drawn.bbox.x1, name
        assert drawn.bbox.x0 <= box.x0, name


def test_open_points_are_marked_and_counted() -> None:
    found = cats_map()
    assert found.epsilon is not None
    upper = found.epsilon.upper.copy()
    upper[:3] += 0.01
    upper[1] = np.inf
    wide = replace(found, epsilon=replace(found.epsilon, upper=upper))
    part = parts(draw.figure(wide, "epsilon"))[0]
    assert "bracket wider than 0.001 (3 of 40)" in legend_texts(part)
    assert not wide.is_closed


def test_one_panel_alone() -> None:
    alone = parts(draw.figure(cats_map("epsilon", data=True)))
    assert len(alone) == 1
    assert legend_texts(alone[0]) == ["boundary as trained", "data, class F", "data, class M"]
    assert len(parts(draw.figure(cats_map(), "flips"))) == 1
    with pytest.raises(InputError, match="flips was not computed"):
        draw.figure(cats_map("epsilon"), "both")


def test_files_by_their_ending(tmp_path: Path) -> None:
    for ending, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")):
        file = tmp_path / f"map{ending}"
        draw.save(cats_map(), file)
        assert file.read_bytes().startswith(start)
    width, height = struct.unpack(">II", (tmp_path / "map.png").read_bytes()[16:24])
    assert width == 3.4 * 300
    assert height > width
    with pytest.raises(InputError, match=r"use one of \.png, \.svg, \.pdf"):
        draw.save(cats_map(), tmp_path / "map.jpeg")
    with pytest.raises(InputError, match="choose another file"):
        draw.save(cats_map(), tmp_path / "no" / "map.png")


def test_svg_for_a_page_is_whole_and_the_same_every_time() -> None:
    text = draw.svg_text(cats_map(), "flips")
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert root.get("width") == f"{3.4 * 72:g}pt"
    assert text == draw.svg_text(cats_map(), "flips")
    assert "http" not in text.replace("http://www.w3.org", "")  # it loads nothing


def partition(cells: list[tuple[float, float, float, float, State]]) -> FlipMap:
    ends = np.array([cell[:4] for cell in cells])
    state = np.array([int(cell[4]) for cell in cells])
    return FlipMap(ends[:, :2], ends[:, 2:], state, np.full(len(cells), -1), 0.5)


def test_open_cells_are_drawn_however_small_they_are() -> None:
    tiny = partition(
        [
            (0.0, 0.0, 1.0, 0.5, State.STABLE),
            (0.0, 0.5, 1.0, 0.50001, State.OPEN),
            (0.0, 0.50001, 1.0, 1.0, State.FLIPPABLE),
        ]
    )
    drawn = _raster(tiny)
    assert (drawn[0] == State.STABLE).all()
    assert (drawn[-1] == State.FLIPPABLE).all()
    assert (drawn == State.OPEN).any(axis=0).all()


def test_colours_tell_apart_without_hue() -> None:
    from matplotlib.colors import to_rgb

    from paramrob.plots.regions import _FLIPPABLE, _OPEN, _STABLE

    light = [np.dot(to_rgb(c), (0.2126, 0.7152, 0.0722)) for c in (_STABLE, _FLIPPABLE, _OPEN)]
    assert light[0] - light[1] > 0.15
    assert light[1] - light[2] > 0.15


def test_the_level_sets_are_the_trained_networks() -> None:
    found: Heatmap = cats_map()
    levels = found.levels
    assert levels is not None
    x, y = np.meshgrid(levels.x, levels.y)
    logit = -3.51518067 + 0.07577862 * x + 1.18118408 * y
    np.testing.assert_allclose(levels.lead[0], 1 / (1 + np.exp(-logit)) - 0.5, atol=1e-12)
