"""A CSV file with one row a point, which a run that was stopped can go on with.

The first line is a comment with digests of everything that the question depends on, the second
names the columns. A row is appended as soon as its point has its answer, and counts only where it
is complete.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import shutil
import tempfile
from dataclasses import dataclass, fields, replace
from pathlib import Path

from paramrob import __version__
from paramrob.digests import network_digest
from paramrob.errors import InputError, SoundnessError
from paramrob.perturbation import GivenInterval, ParameterInterval, PartialInterval
from paramrob.requests.build import Request
from paramrob.verdict import Bracket, Outcome, Verdict

BRACKETS = ("epsilon", "sigma", "sigma_above", "sigma_below", "delta")
COLUMNS = (
    *("index", "class", "label", "correct", "verdict", "solver", "method", "seconds", "reason"),
    *(f"{name}_{end}" for name in BRACKETS for end in ("lower", "upper")),
)
_MARK = "# paramrob points "
_OTHER = {
    "version": "another version of paramrob",
    "model": "another model",
    "perturbation": "another perturbation",
    "radius": "another input radius",
    "property": "another property",
    "points": "other points",
    "arithmetic": "another arithmetic",
}
_SPELLED_OUT = ("reference", "uncertain", "domain", "output", "property")


@dataclass(frozen=True)
class Row:
    """The answer about one point; ``label`` is the reference's."""

    outcome: Outcome
    label: int | None = None


class PointTable:
    """The rows of one question; nothing is written before the first new one.

    Args:
        path: of the file, which need not exist.
        request: about points.

    Attributes:
        path: of the file.
        rows: by the point's index: those that were read, and those that were added.

    Raises:
        InputError: the request is not about points, or the file answers another question, is no
            table of paramrob, or cannot be read or written.
    """

    def __init__(self, path: str | Path, request: Request) -> None:
        if request.points_digest is None:
            raise InputError("--csv writes one row a point: give points with --at")
        self.path = Path(path)
        self.rows: dict[int, Row] = {}
        self._classes = request.classes
        self._estimates = request.asked.quantity is not None
        self._header = f"{_MARK}{json.dumps(_question(request))}\n{','.join(COLUMNS)}\n"
        self._file: io.TextIOBase | None = None
        text = self._text()
        # What is written first: everything where the file does not end with a complete row.
        self._first = self._header
        if not self._header.startswith(text):
            kept = self._read(text)
            self._first = "" if kept == text else kept
        semantics = request.problems[0].semantics
        self.rows = {
            i: replace(row, outcome=replace(row.outcome, semantics=semantics))
            for i, row in self.rows.items()
            if i < len(request.problems)
        }

    def add(self, index: int, row: Row) -> None:
        """Append one row and hand it to the operating system at once.

        Raises:
            InputError: the file cannot be written any more.
        """
        self.rows[index] = row
        true = None if self._classes is None else self._classes[index]
        try:
            if self._file is None:
                self._file = self._opened()
            self._file.write(_line(index, true, row))
            self._file.flush()
        except OSError as error:
            raise InputError(
                f"--csv: {self.path}: {error.strerror}; make room or name another file, then run "
                "the same command again"
            ) from None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _text(self) -> str:
        try:
            text = self.path.read_bytes().decode() if self.path.exists() else ""
        except (OSError, UnicodeDecodeError):
            raise InputError(f"--csv: {self.path} is no table of points; name another") from None
        if self.path.exists() and not os.access(self.path, os.W_OK):
            raise InputError(f"--csv: {self.path} cannot be written; name another file")
        return text

    def _opened(self) -> io.TextIOBase:
        if self._first and self._first != self._header:
            # Rows are never lost: the old file stands until the new one is whole.
            folder = self.path.absolute().parent
            handle, name = tempfile.mkstemp(".tmp", f".{self.path.name}-", folder)
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                file.write(self._first)
            shutil.copymode(self.path, name)
            Path(name).replace(self.path)
            self._first = ""
        file = self.path.open("w" if self._first else "a", encoding="utf-8", newline="")
        file.write(self._first)
        return file

    def _read(self, text: str) -> str:
        """Take the complete rows, and return the file's text without what is not complete."""
        first, _, rest = text.partition("\n")
        _check_question(self.path, first, self._header)
        columns, _, body = rest.partition("\n")
        if columns != ",".join(COLUMNS):
            raise InputError(f"--csv: {self.path} has other columns; name another file")
        lines = []
        for line in (f"{piece}\n" for piece in body.split("\n")[:-1]):
            found = _parsed(line, self._estimates)
            if found is not None and found[0] not in self.rows:
                self.rows[found[0]] = found[1]
                lines.append(line)
        return self._header + "".join(lines)


def _line(index: int, true: int | None, row: Row) -> str:
    outcome = row.outcome
    cells = [
        index,
        "" if true is None else true,
        "" if row.label is None else row.label,
        "" if true is None else str(row.label == true).lower(),
        "" if outcome.verdict is None else outcome.verdict.value,
        outcome.solver,
        outcome.method or "",
        repr(float(outcome.engine_seconds)),
        " ".join((outcome.reason or "").split()),
    ]
    for name in BRACKETS:
        bracket = outcome.brackets.get(name)
        ends = ("", "") if bracket is None else (repr(bracket.lower), repr(bracket.upper))
        cells += ends
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerow(cells)
    return written.getvalue()


def _parsed(line: str, estimates: bool) -> tuple[int, Row] | None:
    """Return the index and the row of one line, ``None`` where it is not complete."""
    try:
        (cells,) = csv.reader([line], strict=True)
        said = dict(zip(COLUMNS, cells, strict=True))
        brackets = {
            name: Bracket(float(said[f"{name}_lower"]), float(said[f"{name}_upper"]))
            for name in BRACKETS
            if said[f"{name}_lower"]
        }
        outcome = Outcome(
            Verdict(said["verdict"]) if said["verdict"] else None,
            said["reason"] or None,
            brackets,
            solver=said["solver"],
            engine_seconds=float(said["seconds"]),
            method=said["method"] or None,
        )
        index = int(said["index"])
        label = int(said["label"]) if said["label"] else None
    except (ValueError, csv.Error, SoundnessError):
        return None
    fine = index >= 0 and math.isfinite(outcome.engine_seconds)
    return (index, Row(outcome, label)) if fine and (not said["verdict"]) is estimates else None


def _check_question(path: Path, first: str, header: str) -> None:
    """Refuse a file whose first line is not that of the question."""
    ours = json.loads(header.partition("\n")[0].removeprefix(_MARK))
    try:
        theirs = json.loads(first.removeprefix(_MARK)) if first.startswith(_MARK) else None
    except ValueError:
        theirs = None
    if not isinstance(theirs, dict):
        raise InputError(f"--csv: {path} is no table of points of paramrob; name another file")
    for part, words in _OTHER.items():
        if theirs.get(part) != ours[part]:
            raise InputError(
                f"--csv: {path} answers another question ({words}); name another file, or ask "
                "the same question again to go on"
            )


def _question(request: Request) -> dict[str, str]:
    """Return what the answers depend on; digests where it is long."""
    asked, claim, output = request.asked, request.asked.property(), request.model.output
    first = request.problems[0]
    networks = (network_digest(first.reference), network_digest(first.uncertain.network))
    parameters = first.uncertain.network.parameters
    # Whatever else a problem says may matter: better one question too many than a wrong answer.
    others = [
        (f.name, repr(value))
        for f in fields(first)
        for value in (getattr(first, f.name),)
        if f.name not in _SPELLED_OUT and value is not None
    ]
    intervals = [request.perturbation.interval(parameters[name]) for name in sorted(parameters)]
    return {
        "version": __version__,
        "model": _short(networks, output.kind, str(output.level)),
        "perturbation": _short(*map(_interval, intervals), request.perturbation.only_ends),
        "radius": str(asked.radius()),
        "property": f"{asked.quantity} {claim.name} {claim.epsilon} {claim.sigma}",
        "points": (request.points_digest or "")[:32],
        "arithmetic": _short(*others) if others else "real",
    }


def _interval(interval: ParameterInterval) -> str:
    if isinstance(interval, GivenInterval):
        return hashlib.sha256(interval.lower.tobytes() + interval.upper.tobytes()).hexdigest()
    moves = interval.moves.tobytes().hex() if isinstance(interval, PartialInterval) else ""
    return f"{interval.absolute} {interval.relative}{moves}"


def _short(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
