"""From the options of a command to what is asked, of which model, and how to solve it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paramrob.engine import Settings
    from paramrob.models.model import Model
    from paramrob.requests.build import Asked


def settings_of(options: dict[str, Any]) -> Settings:
    """Return how to solve; commands that lack an option have its default.

    Raises:
        InputError: a value out of range.
    """
    from paramrob.solve import make_settings

    engine = ("solver", "timeout", "tolerance", "device", "encoding", "cross_check")
    names = (*engine, "method", "memory")
    given = {name: options[name] for name in names if name in options}
    return make_settings(**given, presolve=not options.get("no_presolve", False))


def asked_of(command: Any, quantity: Any, options: dict[str, Any]) -> Asked:
    """Return the question.

    Raises:
        InputError: options that contradict each other.
    """
    from paramrob.requests.build import Asked
    from paramrob.requests.deployments import deployment_options

    perturbation = ("delta", "perturbation", "noise", "leave_out")
    domain = ("domain", "domain_from", "at", "input_radius", "limit")
    # export has no arithmetic (formulas are about real numbers), blame no property either.
    others = ("epsilon", "sigma", "property_name", "arithmetic", "accumulate", "runtime_steps")
    names = (*perturbation, *domain, *others)
    given = {name: options[name] for name in names if name in options}
    if "quantize" in options:  # two files are compared as they are
        given |= deployment_options(options)
    return Asked(command, quantity, **given)


def loaded(model: str, options: dict[str, Any]) -> Model:
    """Return the model that the options describe.

    Raises:
        InputError: a model that cannot be read.
    """
    from paramrob.exact import parse_decimal
    from paramrob.models.load import load

    level = options["level"]
    return load(
        model,
        sidecar=options["sidecar"],
        output_kind=options["output_kind"],
        level=None if level is None else parse_decimal(level, "--level"),
        trust=options["trust"],
        fold_batch_norm=options["fold_batch_norm"],
    )
