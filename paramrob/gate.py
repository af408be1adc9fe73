"""A release gate: what fails it, and the files that it leaves behind."""

from __future__ import annotations

from dataclasses import dataclass

from paramrob.certificate import no_certificate, save_certificate
from paramrob.files import discard, write_whole
from paramrob.junit import junit_xml
from paramrob.report import FailOn, lets_pass
from paramrob.requests.build import Request
from paramrob.verdict import Outcome
from paramrob.wording import passed_words

_JUNIT, _CERTIFICATE = "the JUnit report", "the certificate"


@dataclass(frozen=True)
class Gate:
    """The policy, and where its files go.

    ``fail_on`` is ``refuted`` or ``unknown`` (which fails on a refutation as well).
    """

    fail_on: FailOn = "unknown"
    junit: str | None = None
    certificate: str | None = None

    def clear(self) -> None:
        """Remove the files of an earlier run: a run that breaks off must not leave its answer.

        Raises:
            InputError: one is no regular file, or cannot be removed.
        """
        for path, what in ((self.junit, _JUNIT), (self.certificate, _CERTIFICATE)):
            if path is not None:
                discard(path, what)

    def finish(
        self,
        request: Request,
        outcome: Outcome,
        *,
        witness_file: str | None = None,
        command: str | None = None,
    ) -> list[str]:
        """Write the files, and return what has to be said about the answer.

        Args:
            request: what was asked.
            outcome: of a check or a comparison.
            witness_file: where the reported counterexample was saved, if anywhere.
            command: the command line that repeats it.

        Raises:
            InputError: a file cannot be written.
        """
        said = []
        if self.junit is not None:
            write_whole(self.junit, junit_xml(request, outcome, self.fail_on, witness_file), _JUNIT)
        if self.certificate is not None:
            refusal = no_certificate(outcome)
            if refusal is None:
                save_certificate(self.certificate, request, outcome, command)
            else:
                said.append(f"no certificate was written to {self.certificate}: {refusal}")
        if lets_pass(outcome, self.fail_on):
            said.append(f"{passed_words(outcome)} (--fail-on refuted)")
        return said
