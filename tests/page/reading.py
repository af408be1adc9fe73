"""Reading a page back: elements, text, and the numbers with their place in the JSON object."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

_VOID = {"meta", "img", "br", "link"}


@dataclass
class Read(HTMLParser):
    """What a browser would find in a page (strict: every tag has to be closed in order)."""

    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    numbers: list[tuple[str, str, str]] = field(default_factory=list)
    open_tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.elements.append((tag, given))
        if tag not in _VOID:
            self.open_tags.append(tag)
        if tag == "data" and "data-path" in given:
            self.numbers.append((given["data-path"], given["value"], ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags, f"</{tag}> without its start"
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open_tags:
            return
        self.texts.append(data)
        if self.numbers and self.open_tags and self.open_tags[-1] == "data":
            path, value, text = self.numbers[-1]
            self.numbers[-1] = (path, value, text + data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def tags(self, name: str) -> list[dict[str, str]]:
        return [given for tag, given in self.elements if tag == name]


def read(page: str) -> Read:
    found = Read()
    found.feed(page)
    found.close()
    assert not found.open_tags
    return found


def at_path(report: Any, path: str) -> Any:
    """Return what stands at ``brackets.epsilon.lower`` of a JSON object."""
    for key in path.split("."):
        if not isinstance(report, list) and key not in report:
            # A single output is a number, not a list of one.
            raise KeyError(path)
        report = report[int(key)] if isinstance(report, list) else report[key]
    return report


def check_numbers(found: Read, report: Any) -> set[str]:
    """Hold every number that names its place against the JSON; return the places."""
    assert found.numbers
    for path, value, text in found.numbers:
        known = at_path(report, path)
        if known is None:
            assert (value, text) == ("unbounded", "unbounded")
        else:
            assert float(value) == float(text) == known, path
            assert re.fullmatch(r"-?[\d.]+(e[+-]?\d+)?", text)
    return {path for path, _, _ in found.numbers}
