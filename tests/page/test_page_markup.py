from __future__ import annotations

import html

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paramrob.page.markup import Html, clean, element, escaped, joined
from tests.page.reading import read

UNHURRIED = settings(derandomize=True, database=None, deadline=None)


def test_what_is_no_markup_is_escaped() -> None:
    assert element("p", "<b>", Html("<i></i>"), 3) == "<p>&lt;b&gt;<i></i>3</p>"
    assert element("a", "x", title='"><script>') == '<a title="&quot;&gt;&lt;script&gt;">x</a>'
    assert joined("&", element("b")) == "&amp;<b></b>"
    assert element("meta", name="n", content="c") == '<meta name="n" content="c">'
    assert element("p", class_="a", data_path="b", title=None) == '<p class="a" data-path="b"></p>'


@pytest.mark.parametrize(
    "text", ["\x00", "\x1b[2J", "\udce9", "\u202e", "\u2066", "\ufffe", "\x85"]
)
def test_characters_that_disguise_or_break_are_spelled(text: str) -> None:
    shown = clean(f"a{text}b")
    assert shown == f"a\\u{ord(text[0]):04x}{text[1:]}b"
    shown.encode("utf-8")


@UNHURRIED
@given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_any_text_survives_as_text(text: str) -> None:
    page = element("p", text, title=text)
    found = read(page)
    assert found.elements == [("p", {"title": html.unescape(escaped(text))})]
    assert "".join(found.texts) == clean(text)
    page.encode("utf-8")
