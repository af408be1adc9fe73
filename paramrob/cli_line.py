"""The command line that repeats a command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import click
from click.core import ParameterSource


def command_line(
    context: click.Context,
    name: str | None = None,
    leave_out: Sequence[str] = (),
    more: Sequence[str] = (),
) -> str:
    """Return what was typed, but for ``-q`` and ``-v``, as a shell runs it again.

    Args:
        context: of the command.
        name: of another command that takes the same options; the same by default.
        leave_out: parameters that are not repeated.
        more: words to add.
    """
    words = ["paramrob", name or context.info_name or ""]
    for parameter in context.command.params:
        said = parameter.name or ""
        typed = context.get_parameter_source(said) is ParameterSource.COMMANDLINE
        if not typed or said in ("quiet", "verbose", *leave_out):
            continue
        value = context.params[said]
        if isinstance(parameter, click.Argument):
            words.append(str(value))
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            # --symmetric/--affine: one switch with two names
            names = parameter.opts if value else parameter.secondary_opts
            words.append(max(names or parameter.opts, key=len))
        else:
            option = max(parameter.opts, key=len)
            values = value if parameter.multiple else (value,)
            words += [word for each in values for word in (option, str(each))]
    return shlex.join([*words, *more])
