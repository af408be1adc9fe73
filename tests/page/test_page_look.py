"""Pages as files: names stay text, nothing is loaded, everybody can read them."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np

from paramrob.models.model import OutputInfo
from paramrob.models.network import Dense, Input, Network, Node, Parameter
from paramrob.page import Picture, page_of
from paramrob.page.render import render
from paramrob.solve import PointsOutcome
from paramrob.verdict import Outcome, Verdict
from tests.page.pages import answered, asked, checked, page_text
from tests.page.reading import read
from tests.small_models import bare_model, named_model

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>\u202e\x00&amp;'


def test_names_from_files_stay_text() -> None:
    model = named_model()
    network = Network(
        [
            Node("input", Input(), (), (2,)),
            Node(HOSTILE, Dense(f"{HOSTILE}.weight", None), ("input",), (1,)),
        ],
        [Parameter(f"{HOSTILE}.weight", np.array([[1.0, -1.0]]))],
    )
    model = replace(
        model,
        network=network,
        path=f"{HOSTILE}.pt",
        inputs=replace(model.inputs, names=(HOSTILE, "b"), units=(HOSTILE, "")),
        output=OutputInfo("logit", Fraction(1, 2), (HOSTILE, "M")),
        assumptions=(HOSTILE,),
    )
    request = asked(model, domain=[(0, 1), (0, 1)])
    outcome = replace(answered(request), reason=HOSTILE, notes=(HOSTILE,), solver=HOSTILE)
    assert outcome.verdict is Verdict.NOT_ROBUST
    picture = Picture(HOSTILE, HOSTILE, b"<svg/>", "image/svg+xml", HOSTILE)
    found, _ = checked(request, outcome, command=HOSTILE, witness_file=HOSTILE, pictures=[picture])
    plain = read(page_text(asked(), answered(asked())))
    allowed = {tag for tag, _ in plain.elements} | {"img", "figcaption"}
    assert {tag for tag, _ in found.elements} <= allowed
    assert not found.tags("script")
    for _, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on")]
    assert len(found.tags("img")) == 1
    assert '"><script>alert(1)</script>' in found.text
    assert "\u202e" not in found.text


def test_the_page_asks_no_network_for_anything() -> None:
    text = page_text(asked(), answered(asked()))
    found = read(text)
    assert not found.tags("link")
    assert not found.tags("script")
    for _, attributes in found.elements:
        assert not {"href", "src", "action"} & set(attributes)
    assert "url(" not in text
    assert "@import" not in text
    (policy,) = [m["content"] for m in found.tags("meta") if "http-equiv" in m]
    assert policy.startswith("default-src 'none'")


def test_the_page_can_be_read_by_everybody() -> None:
    text = page_text(asked(), answered(asked()))
    found = read(text)
    assert found.tags("html") == [{"lang": "en"}]
    assert len(found.tags("h1")) == 1
    headings = [int(tag[1]) for tag, _ in found.elements if tag in ("h1", "h2", "h3")]
    assert headings[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(headings))
    assert all(svg.get("role") == "img" for svg in found.tags("svg"))
    assert len(found.tags("title")) == len(found.tags("svg")) + 1
    assert all("scope" in th for th in found.tags("th"))
    for words in ("prefers-color-scheme: dark", "@media print", "max-width: 36rem"):
        assert words in text


def colours(text: str) -> list[dict[str, str]]:
    """Return the light and the dark palette of a page."""
    blocks = re.findall(r":root \{(.*?)\}", text, re.S)[:2]
    return [dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in blocks]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_colours_have_the_contrast_that_wcag_asks_for() -> None:
    for palette in colours(page_text(asked(), answered(asked()))):
        for ink, ground in [
            ("ink", "ground"),
            ("soft", "ground"),
            ("ink", "sheet"),
            *((tone, f"{tone}-ground") for tone in ("good", "bad", "open", "plain")),
            *(("ink", f"{tone}-ground") for tone in ("good", "bad", "open", "plain")),
        ]:
            high, low = sorted((luminance(palette[ink]), luminance(palette[ground])), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)


def test_pictures_stand_in_the_page() -> None:
    picture = Picture("A map", "what it shows", b"\x89PNG", "image/png", "the colours")
    request = asked()
    found = read(page_text(request, answered(request), pictures=[picture]))
    assert found.tags("img") == [{"src": "data:image/png;base64,iVBORw==", "alt": "what it shows"}]
    assert "the colours" in found.text


def test_a_large_json_is_left_out() -> None:
    count = 1000
    request = asked(at=[[6.3 + i / count, 2.0] for i in range(count)])
    whole = PointsOutcome(Verdict.ROBUST, points=(Outcome(Verdict.ROBUST),) * count)
    page = page_of(request, whole, tolerance=1e-6)
    assert page.report is None
    assert "as JSON" not in render(page)
    assert "as JSON" in page_text(asked(), answered(asked()))


def test_what_was_assumed_is_said() -> None:
    request = asked(bare_model())
    found, _ = checked(request, answered(request))
    assert "Every input lies in [0, 1]" in found.text
    assert "The output is a probability" in found.text
