from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paramrob import __version__
from paramrob.junit import junit_xml
from paramrob.report import FailOn, exit_code
from paramrob.verdict import Outcome, Verdict
from tests.gate_cases import OPEN, REFUTED, ROBUST, asked, at_points
from tests.small_models import classifier_model, named_model

STATES = ("failure", "error", "skipped")
PLURALS = {"failure": "failures", "error": "errors", "skipped": "skipped"}


def parsed(data: bytes) -> ElementTree.Element:
    """Return the suite of a document that keeps the rules of Ant's schema for JUnit."""
    root = ElementTree.fromstring(data)
    assert root.tag == "testsuites"
    (suite,) = root
    assert suite.tag == "testsuite"
    assert {"name", "timestamp", "hostname", "tests", "failures", "errors", "time"} <= {
        *suite.attrib
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
    assert suite[0].tag == "properties"
    assert all(set(p.attrib) == {"name", "value"} for p in suite[0])
    assert len({p.attrib["name"] for p in suite[0]}) == len(suite[0])
    cases = suite[1:]
    assert {case.tag for case in cases} == {"testcase"}
    names = [(case.attrib["classname"], case.attrib["name"]) for case in cases]
    assert len(set(names)) == len(cases)
    for case in cases:
        assert set(case.attrib) == {"classname", "name", "time"}
        assert len(case) <= 1
        assert {child.tag for child in case} <= set(STATES)
        assert all(child.attrib["message"] for child in case)
        assert all("type" in child.attrib for child in case if child.tag != "skipped")
    for each in (root, suite):
        assert int(each.attrib["tests"]) == len(cases)
        for state in STATES:
            found = sum(case.find(state) is not None for case in cases)
            assert int(each.attrib[PLURALS[state]]) == found
    for timed in (root, suite, *cases):
        assert re.fullmatch(r"\d+\.\d+", timed.attrib["time"])
    return suite


def properties(suite: ElementTree.Element) -> dict[str, str]:
    return {p.attrib["name"]: p.attrib["value"] for p in suite[0]}


def test_a_proved_box_is_one_case_that_passes() -> None:
    suite = parsed(junit_xml(asked(sigma="0.06"), ROBUST))
    (case,) = suite.findall("testcase")
    assert case.attrib["name"] == "margin 0.06: every input of the box"
    assert float(case.attrib["time"]) == float(suite.attrib["time"]) == 0.5
    assert len(case) == 0
    said = properties(suite)
    assert said["model"] == "cats/model.pt"
    assert said["model.sha256"] == "ab" * 32
    assert said["delta"] == "0.01"
    assert said["property"] == "margin"
    assert said["semantics"] == "real"
    assert said["version"] == f"paramrob {__version__}"


def test_a_refuted_box_is_a_failure_with_the_witness_in_words() -> None:
    suite = parsed(junit_xml(asked(), REFUTED, witness_file="w.npz"))
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.attrib["message"] == "the label changes from F to M at Hwt = 7 g, Bwt = 2.5 kg"
    assert failure.text is not None
    for words in ("trained: 0.25, label F", "perturbed: 0.75, label M", "paramrob replay w.npz"):
        assert words in failure.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epsilon": "0.05"}, "the confidence moves by more than 0.05 at Hwt"),
        ({"sigma": "0.1"}, "from F to M at least 0.1 from the decision boundary at Hwt"),
    ],
)
def test_a_failure_says_what_is_exceeded(options: dict[str, Any], words: str) -> None:
    failure = parsed(junit_xml(asked(**options), REFUTED)).find("testcase/failure")
    assert failure is not None
    assert words in failure.attrib["message"]


@pytest.mark.parametrize(
    ("fail_on", "interrupted", "state"),
    [
        ("unknown", False, "error"),
        ("refuted", False, "skipped"),
        ("refuted", True, "error"),
        ("unknown", True, "error"),
    ],
)
def test_what_is_open_is_an_error_unless_the_gate_lets_it_pass(
    fail_on: FailOn, interrupted: bool, state: str
) -> None:
    outcome = replace(OPEN, interrupted=interrupted)
    found = parsed(junit_xml(asked(), outcome, fail_on)).find(f"testcase/{state}")
    assert found is not None
    assert "raise --timeout" in found.attrib["message"]


def test_every_point_is_a_case_with_its_own_time() -> None:
    request, outcome = at_points(ROBUST, REFUTED, OPEN, ROBUST)
    suite = parsed(junit_xml(request, outcome, "refuted", "w.npz"))
    cases = suite.findall("testcase")
    assert [case.attrib["name"] for case in cases] == [f"labels: point {i}" for i in range(4)]
    assert [[child.tag for child in case] for case in cases] == [[], ["failure"], ["skipped"], []]
    assert [float(case.attrib["time"]) for case in cases] == [0.5, 0.25, 1.25, 0.5]
    assert float(suite.attrib["time"]) == 2.5


def test_a_point_from_a_table_has_no_witness() -> None:
    request, outcome = at_points(Outcome(Verdict.NOT_ROBUST), ROBUST)
    failure = parsed(junit_xml(request, outcome)).find("testcase/failure")
    assert failure is not None
    assert "not kept" in failure.attrib["message"]


def test_a_file_is_named_beside_the_point_whose_witness_it_holds() -> None:
    other = replace(REFUTED, witness=replace(REFUTED.witness))  # type: ignore[type-var]
    request, outcome = at_points(other, REFUTED)
    texts = [f.text or "" for f in parsed(junit_xml(request, outcome, "unknown", "w.npz")).iter()]
    assert sum("paramrob replay" in text for text in texts) == 1


verdicts = st.lists(st.sampled_from([ROBUST, OPEN, REFUTED]), min_size=2, max_size=6)


@settings(derandomize=True, database=None, deadline=None, max_examples=60)
@given(verdicts, st.sampled_from(["refuted", "unknown"]), st.booleans())
def test_failures_and_errors_are_there_exactly_if_the_exit_code_is_not_0(
    parts: list[Outcome], fail_on: FailOn, interrupted: bool
) -> None:
    request, outcome = at_points(*parts)
    stopped = replace(outcome, interrupted=interrupted)
    suite = parsed(junit_xml(request, stopped, fail_on))
    bad = int(suite.attrib["failures"]) + int(suite.attrib["errors"])
    assert (bad > 0) == (exit_code(stopped, 1e-6, fail_on) != 0)


@settings(derandomize=True, database=None, deadline=None, max_examples=100)
@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=8))
def test_no_text_breaks_the_document(text: str) -> None:
    model = named_model()
    inputs = replace(model.inputs, names=(f"a{text}", "b"), units=(text, ""))
    output = replace(model.output, labels=("F", text))
    odd = replace(model, inputs=inputs, output=output, path=f"{text}.pt")
    suite = parsed(junit_xml(asked(odd), replace(REFUTED, reason=text), witness_file=text))
    assert properties(suite)["delta"] == "0.01"


def test_forbidden_characters_are_spelled_out() -> None:
    model = replace(named_model(), path="a\x00b\x1b[31m\ud800<&>\"'\ufffe.pt")
    suite = parsed(junit_xml(asked(model), ROBUST))
    assert properties(suite)["model"] == "a\\x00b\\x1b[31m\\xd800<&>\"'\\xfffe.pt"


def test_several_outputs_and_an_object_in_memory() -> None:
    request = asked(classifier_model(), domain=(0, 1), epsilon="0.5")
    suite = parsed(junit_xml(request, ROBUST))
    assert properties(suite)["model"] == "given as an object"
    assert suite.attrib["name"] == "paramrob check a model given as an object"
