"""The answer as JUnit XML, which continuous integration shows beside other tests.

The elements and attributes are those of the schema of Apache Ant's JUnit task, which Jenkins,
GitLab and GitHub's reporters read. A refuted case is a failure. An open one is an error, unless
the gate lets it pass: then it is skipped. So there is a failure or an error exactly where the exit
code of the command is not 0.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import PurePath
from xml.etree import ElementTree

from paramrob import __version__
from paramrob.decimals import bracket_texts
from paramrob.domain import Ball, Box
from paramrob.exact import decimal_text
from paramrob.report import FailOn, as_json, label_name, lets_pass
from paramrob.requests.build import Request
from paramrob.runtime import runtime_words
from paramrob.several import PointsOutcome
from paramrob.verdict import Outcome, Verdict
from paramrob.wording import (
    claim_words,
    domain_words,
    passed_words,
    perturbation_words,
    question,
    refuted_words,
    sides,
    where,
    witness_lines,
)

# The production Char of XML 1.0 (https://www.w3.org/TR/xml/#charsets), negated.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NO_REASON = "neither proved nor refuted"


def junit_xml(
    request: Request,
    outcome: Outcome,
    fail_on: FailOn = "unknown",
    witness_file: str | None = None,
) -> bytes:
    """Return the answer as JUnit XML: one suite, a case a point or one for the box.

    Args:
        request: what was asked.
        outcome: the answer to it; it has a verdict.
        fail_on: what the gate fails on.
        witness_file: where the reported counterexample was saved, if anywhere.
    """
    parts = outcome.points if isinstance(outcome, PointsOutcome) else (outcome,)
    passes = lets_pass(Outcome(Verdict.UNKNOWN, interrupted=outcome.interrupted), fail_on)
    suite = ElementTree.Element("testsuite")
    listed = ElementTree.SubElement(suite, "properties")
    for name, value in _properties(request, outcome, fail_on):
        ElementTree.SubElement(listed, "property", name=name, value=_clean(value))
    for index, part in enumerate(parts):
        saved = witness_file if part.witness is outcome.witness else None
        suite.append(_case(request, index, part, passes, saved))
    totals = {
        "tests": str(len(parts)),
        "failures": str(len(suite.findall("testcase/failure"))),
        "errors": str(len(suite.findall("testcase/error"))),
        "skipped": str(len(suite.findall("testcase/skipped"))),
        "time": _seconds(outcome),
    }
    suite.attrib |= {"name": _clean(_suite_name(request)), **totals}
    # The schema wants both; which machine it was is nobody's business.
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    suite.attrib |= {"timestamp": now, "hostname": "localhost"}
    root = ElementTree.Element("testsuites", {"name": "paramrob", **totals})
    root.append(suite)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _suite_name(request: Request) -> str:
    """Return the command and the files that it is about, as they are typed."""
    models = [m for m in (request.reference, request.model) if m is not None]
    paths = [m.path or "a model given as an object" for m in models]
    return " ".join(("paramrob", request.asked.command, *paths))


def _case(
    request: Request, index: int, part: Outcome, passes: bool, saved: str | None
) -> ElementTree.Element:
    """Return the case of one problem."""
    stem = PurePath(request.model.path or "model").stem
    named = {"classname": _clean(f"paramrob.{stem.replace('.', '_')}")}
    case = ElementTree.Element("testcase", named, name=_name(request, index), time=_seconds(part))
    if part.verdict is Verdict.NOT_ROBUST:
        said, lines = refuted_words(request, part), _failure(request, part, saved)
        found = ElementTree.SubElement(case, "failure", type="not_robust", message=_clean(said))
        found.text = _clean("\n".join(lines))
    elif part.verdict is not Verdict.ROBUST and passes:
        said = f"{passed_words(part)}; {part.reason or _NO_REASON}"
        ElementTree.SubElement(case, "skipped", message=_clean(said))
    elif part.verdict is not Verdict.ROBUST:
        said = part.reason or _NO_REASON
        found = ElementTree.SubElement(case, "error", type="unknown", message=_clean(said))
        found.text = _clean(f"{question(request)}\nNeither proved nor refuted: {said}")
    return case


def _failure(request: Request, part: Outcome, saved: str | None) -> list[str]:
    lines = [question(request), f"parameters: {perturbation_words(request)}"]
    if part.witness is not None:
        first, *rest = witness_lines(request.model, part.witness, sides(request))
        lines += [f"witness: {first}", *rest]
    if part.runtime is not None:
        names = [label_name(request.model.output, label) for label in part.runtime.labels]
        lines.append(f"runtime: {runtime_words(part.runtime, names)}")
    if saved is not None:
        lines.append(f"repeat it with: paramrob replay {saved}")
    return lines


def _name(request: Request, index: int) -> str:
    """Return a name that stays the same from run to run, and is one of its own in the suite."""
    asked, domain = request.asked.property(), request.problems[index].domain
    claim = str(asked.name)
    threshold = asked.epsilon if asked.epsilon is not None else asked.sigma
    if threshold is not None:
        claim += f" {decimal_text(threshold)}"
    at = f"point {index}" if request.several else "the input"
    if isinstance(domain, Ball):
        at = f"within {decimal_text(domain.radius)} of {at}"
    return f"{claim}: {'every input of the box' if isinstance(domain, Box) else at}"


def _properties(request: Request, outcome: Outcome, fail_on: FailOn) -> list[tuple[str, str]]:
    report = as_json(request, outcome)
    first = request.problems[0]
    at = where(request) if request.several else domain_words(request.model, first.domain)
    rows = []
    for key in ("model", "reference"):
        if report[key] is not None:
            rows.append((key, str(report[key]["path"] or "given as an object")))
            rows.append((f"{key}.sha256", str(report[key]["sha256"] or "none: not from a file")))
    delta = request.asked.exact_delta()
    if delta is not None:
        rows.append(("delta", decimal_text(delta)))
    rows += [
        ("perturbation", perturbation_words(request)),
        ("domain", at),
        ("property", report["property"]["name"]),
        ("question", f"{claim_words(request)}?"),
        ("semantics", first.semantics),
        ("solver", outcome.solver),
        ("fail_on", fail_on),
        ("version", f"paramrob {__version__}"),
    ]
    for name, bracket in outcome.brackets.items():
        rows.append((name, " .. ".join(bracket_texts(bracket.lower, bracket.upper))))
    return rows


def _seconds(outcome: Outcome) -> str:
    return f"{outcome.engine_seconds:.6f}"


def _clean(text: str) -> str:
    """Return the text with characters that no XML document may hold spelled out."""
    return _FORBIDDEN.sub(lambda found: f"\\x{ord(found.group()):02x}", text)
