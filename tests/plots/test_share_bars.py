"""The bars of layers: as long as their brackets."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle

from paramrob.errors import InputError
from paramrob.layer_shares import Share, Shares
from paramrob.plots import share_bars
from paramrob.requests.build import Asked, build
from paramrob.verdict import Bracket
from tests.small_models import scaled_model

INFINITE = float("inf")


def made(count: int = 2, upper: float = 0.5) -> Shares:
    request = build(Asked("estimate", "epsilon", delta="0.1"), scaled_model())
    shares = [Share(f"layer{i}", 3, Bracket(0.25, upper), Bracket(0.5, 0.5)) for i in range(count)]
    return Shares(request, tuple(shares), Bracket(0.5, 0.75))


def bars(found: Shares) -> list[tuple[float, float]]:
    axes = share_bars.figure(found).axes[0]
    shapes = [p for p in axes.patches if isinstance(p, Rectangle)]
    return [(p.get_x(), p.get_width()) for p in shapes]


def test_bars_show_the_brackets() -> None:
    assert bars(made()) == [(0, 0.25), (0.25, 0.25), (0, 0.5)] * 2
    drawn = share_bars.figure(made())
    axes = drawn.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["layer0", "layer1"]
    assert axes.get_ylim() == (1.5, -0.5)
    assert axes.get_xlim()[1] > 0.75


def test_an_unbounded_bracket_ends_at_the_edge() -> None:
    found = made(upper=INFINITE)
    end = share_bars.figure(found).axes[0].get_xlim()[1]
    assert sum(bars(found)[1]) == pytest.approx(end)


def test_of_many_parts_the_first_are_drawn_and_said_to_be() -> None:
    drawn = share_bars.figure(made(share_bars.MOST + 5))
    assert len(drawn.axes[0].get_yticks()) == share_bars.MOST
    assert f"the first {share_bars.MOST} of {share_bars.MOST + 5}" in drawn.get_suptitle()


def test_nothing_is_cut_off() -> None:
    drawn = share_bars.figure(made())
    FigureCanvasAgg(drawn).get_renderer()  # type: ignore[no-untyped-call]
    drawn.draw_without_rendering()
    box = drawn.bbox
    for legend in drawn.legends:
        seen = legend.get_window_extent()
        assert box.x0 <= seen.x0
        assert seen.x1 <= box.x1


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_equal_numbers_make_equal_files(ending: str, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}{ending}" for name in "ab"]
    for file in files:
        share_bars.save(made(), file)
    assert files[0].read_bytes() == files[1].read_bytes()
    with pytest.raises(InputError, match="ending"):
        share_bars.save(made(), tmp_path / "a.gif")
