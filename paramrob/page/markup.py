"""HTML from nested calls, in which whatever is not markup already is escaped."""

from __future__ import annotations

import html
import unicodedata

_VOID = frozenset({"br", "img", "meta", "link"})
# Characters that turn the direction of the text around them: a name could hide behind them.
_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Html(str):
    """Text that is markup already and is not escaped again."""

    __slots__ = ()


def clean(text: str) -> str:
    """Return ``text`` with control, surrogate and direction characters spelled as escapes.

    They have no place in an HTML file, or would let a name in a model file disguise what
    stands beside it.
    """
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character in "\n\t":
        return character
    odd = unicodedata.category(character) in ("Cc", "Cs") or character in _TURNS
    # U+FFFE and U+FFFF of every plane are no characters.
    if odd or ord(character) & 0xFFFE == 0xFFFE:
        return f"\\u{ord(character):04x}"
    return character


def escaped(value: object) -> Html:
    """Return a value as markup: :class:`Html` as it is, anything else escaped."""
    if isinstance(value, Html):
        return value
    return Html(html.escape(clean(str(value)), quote=True))


def joined(*parts: object) -> Html:
    """Return the parts one after the other, each escaped unless it is markup."""
    return Html("".join(escaped(part) for part in parts))


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """Return an element.

    Args:
        name: the tag.
        children: escaped unless they are markup.
        attributes: a trailing underscore is dropped (``class_``), others become hyphens;
            ``None`` leaves the attribute out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{joined(*children)}</{name}>")
