"""The command line: options in, report and exit code out.

Nothing heavy is imported until a command needs it, so that ``--help`` answers at once.
"""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import click

from paramrob import __version__
from paramrob.cli_files import (
    WRITTEN,
    check_apart,
    check_writable,
    console,
    option_of,
    say,
    write_answer,
    write_text,
)
from paramrob.cli_line import command_line
from paramrob.cli_options import (
    blame_options,
    compare_options,
    export_options,
    gate_options,
    heatmap_options,
    per_layer_option,
    shared_options,
)
from paramrob.cli_request import asked_of, loaded, settings_of
from paramrob.errors import InputError, ParamrobError

if TYPE_CHECKING:
    from paramrob.requests.build import Asked, Request

BAD_INPUT, OPEN, INTERNAL = 2, 3, 4


def _with_exit_codes(command: Callable[..., int]) -> Callable[..., NoReturn]:
    """Turn the exit code that a command returns, or its exception, into the process's."""

    @functools.wraps(command)
    def wrapped(*args: Any, **options: Any) -> NoReturn:
        try:
            sys.exit(command(*args, **options))
        except InputError as error:
            say(str(error))
            sys.exit(BAD_INPUT)
        except KeyboardInterrupt:
            say("stopped before the engine had an answer")
            sys.exit(OPEN)
        except (click.ClickException, click.exceptions.Exit, SystemExit):
            raise
        except Exception as error:
            if options.get("verbose"):
                traceback.print_exc()
            kind = "" if isinstance(error, ParamrobError) else f"{type(error).__name__}: "
            advice = "" if options.get("verbose") else " (-v shows where; please report it)"
            say(f"internal error: {kind}{error}{advice}")
            sys.exit(INTERNAL)

    return wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 90})
@click.version_option(__version__, prog_name="paramrob", message="%(prog)s %(version)s")
def main() -> None:
    """Prove what a neural network does for every parameter vector in a box.

    \b
    Exit codes: 0 proved, 1 refuted with a witness, 2 bad input, 3 open or stopped,
    4 internal error. With --fail-on refuted an open question exits with 0 as well.
    """


@main.command()
@click.argument("model")
@shared_options
@gate_options
@_with_exit_codes
def check(model: str, **options: Any) -> int:
    """Prove or refute a property of MODEL: do its labels stay, by default.

    \b
    paramrob check model.pt --delta 0.01
    paramrob check model.pt --delta 0.01 --domain 6.3:20.5,2.0:3.9 --sigma 0.06
    paramrob check model.onnx --delta 1e-3 --at test.npz --csv rows.csv
    paramrob check model.onnx --delta 1e-3 --at test.npz --junit gate.xml --certificate gate.json
    """
    return _answer(asked_of("check", None, options), model, options)


@main.command()
@click.argument("model")
@click.argument("quantity", type=click.Choice(("epsilon", "sigma", "delta", "bits")))
@shared_options
@per_layer_option
@_with_exit_codes
def estimate(model: str, quantity: str, per_layer: bool, **options: Any) -> int:
    """Bracket a QUANTITY of MODEL.

    \b
    epsilon  the largest change of the confidence
    sigma    how far from the decision boundary a label can flip
    delta    the largest box in which a property holds
    bits     the fewest bits of integer weights from which on it holds
    """
    if quantity == "bits":
        from paramrob.cli_bits import bits

        return bits(model, options, per_layer)
    if per_layer:
        raise InputError("--per-layer goes with estimate MODEL bits; leave it out")
    return _answer(asked_of("estimate", quantity, options), model, options)


@main.command()
@click.argument("model")
@blame_options
@_with_exit_codes
def blame(model: str, **options: Any) -> int:
    """Rank the layers of MODEL by how far each moves its confidence, with proofs.

    \b
    paramrob blame model.pt --quantize int8
    paramrob blame model.onnx --quantize int4 --at test.npz -o layers.png
    paramrob blame model.onnx --delta 0.001 --per-channel fc1 --json channels.json
    """
    from paramrob.cli_blame import blamed

    return blamed(model, options)


@main.command()
@click.argument("reference")
@click.argument("model")
@compare_options
@gate_options
@_with_exit_codes
def compare(reference: str, model: str, **options: Any) -> int:
    """Hold MODEL against REFERENCE: does it give the same labels, by default.

    Two files of any architectures with the same inputs and outputs: float and quantized, teacher
    and student, before and after pruning. Parameters do not move unless --delta moves MODEL's.

    \b
    paramrob compare float.onnx int8.onnx --at test.npz --csv rows.csv
    paramrob compare float.onnx int8.onnx --at test.npz --input-radius 0.01 --runtime-steps 1
    paramrob compare teacher.pt student.pt --domain 0:1 --epsilon 0.1
    paramrob compare float.onnx int8.onnx --at test.npz --junit gate.xml --certificate gate.json
    """
    return _answer(asked_of("compare", None, options), model, options, reference)


@main.command()
@click.argument("model")
@heatmap_options
@_with_exit_codes
def heatmap(model: str, **options: Any) -> int:
    """Draw two inputs of MODEL: how far its confidence moves, and where its label can flip.

    \b
    paramrob heatmap model.pt --delta 0.005 -o map.png
    paramrob heatmap model.pt --delta 0.005 --kind flips --data train.csv -o map.svg
    paramrob heatmap model.onnx --delta 1e-3 --x age --y dose --fix weight=70 --grid 60 -o map.pdf
    """
    outputs = {
        "output_file": "-o",
        "csv_file": "--csv",
        "html_file": "--html",
        "json_file": "--json",
    }
    for name, option in outputs.items():
        check_writable(options[name], option)
    if not any(options[name] for name in outputs):
        raise InputError(
            "nothing to write: give -o FILE.png (or .svg, .pdf), --csv, --html or --json"
        )
    from paramrob.plots.command import answer

    made, files = answer(lambda: loaded(model, options), options)
    if options["html_file"] is not None:
        from paramrob.page import save_page
        from paramrob.page.maps import heatmap_page

        page = heatmap_page(made, command_line(click.get_current_context()))
        save_page(options["html_file"], page)
        files.append(options["html_file"])
    if options["json_file"] != "-":
        from paramrob.plots.tables import print_heatmap

        print_heatmap(console(), made, files, options["quiet"])
    return 0 if made.is_closed else OPEN


@main.command()
@click.argument("model")
@export_options
@_with_exit_codes
def export(model: str, **options: Any) -> int:
    """Write what contradicts a property of MODEL as a formula.

    SMT-LIB, and the aggregated encoding in every format, compare the score before a final
    sigmoid where that removes the sigmoid; the direct formula for dReal and in LaTeX is the
    paper's, sigmoid and all. The comments at its head say which.

    \b
    paramrob export model.pt --delta 0.01 -o q.smt2
    paramrob export model.pt --delta 0.01 --epsilon 0.05 --format dreal -o q.smt2
    paramrob export model.pt --delta 0.01 --encoding aggregated --format latex -o q.tex
    """
    from paramrob.export import export_text
    from paramrob.requests.build import build

    asked = asked_of("check", None, options)
    path = options["output_file"]
    if path != "-":
        check_writable(path, "-o")
    request = build(asked, loaded(model, options))
    use_presolve = not options["no_presolve"]
    text = export_text(request, options["encoding"], options["form"], use_presolve)
    if path == "-":
        click.echo(text, nl=False)
    else:
        write_text(path, text, "-o")
    return 0


@main.command()
@click.argument("witness")
@click.option("--model", metavar="PATH", help="The model, where it is no longer where it was.")
@click.option("--reference", metavar="PATH", help="The same for the first of two files.")
@click.option("--trust", is_flag=True, help="Load TorchScript, which can run code from it.")
@click.option("-v", "--verbose", is_flag=True, help="Show internal errors in full.")
@click.option("-q", "--quiet", is_flag=True, help="One line.")
@_with_exit_codes
def replay(
    witness: str,
    model: str | None,
    reference: str | None,
    trust: bool,
    verbose: bool,
    quiet: bool,
) -> int:
    """Re-execute a saved counterexample exactly: 0 if it is one, 1 if not."""
    from paramrob.report_text import print_replay
    from paramrob.witnesses import replay_file

    replayed = replay_file(witness, model, trust=trust, reference_path=reference)
    print_replay(console(), replayed, quiet=quiet)
    return 0 if replayed.reproduced else 1


@main.command()
@_with_exit_codes
def solvers() -> int:
    """List the solvers: version, what each decides, how to get what is missing."""
    from rich.markup import escape
    from rich.table import Table

    from paramrob.backends import backends

    table = Table(box=None, pad_edge=False)
    for heading in ("solver", "version", "decides", "state"):
        table.add_column(heading)
    for backend in backends():
        cells = (backend.name, backend.version or "-", backend.decides, backend.advice)
        table.add_row(*map(escape, cells))
    console().print(table)
    return 0


def _answer(asked: Asked, model: str, options: dict[str, Any], reference: str | None = None) -> int:
    from dataclasses import replace

    from paramrob.gate import Gate
    from paramrob.point_table import PointTable
    from paramrob.progress import ProgressLine
    from paramrob.report import exit_code
    from paramrob.runtime import with_runtime
    from paramrob.solve import solve

    settings = settings_of(options)
    for name in WRITTEN:
        check_writable(options.get(name), option_of(name))
    check_apart(model, options, reference)
    files = (options.get("junit_file"), options.get("certificate_file"))
    gate = Gate(options.get("fail_on", "unknown"), *files)
    request = _request(asked, model, options, reference)
    table = None if options["csv_file"] is None else PointTable(options["csv_file"], request)
    gate.clear()
    with ProgressLine(console(stderr=True)) as line:
        outcome = solve(request, replace(settings, progress=line), table, line.points)
    if reference is not None:
        outcome = with_runtime(request, outcome)
    saved = write_answer(request, outcome, options)
    command = command_line(click.get_current_context())
    for said in gate.finish(request, outcome, witness_file=saved, command=command):
        say(said)
    return exit_code(outcome, settings.tolerance, gate.fail_on)


def _request(asked: Asked, model: str, options: dict[str, Any], reference: str | None) -> Request:
    from paramrob.requests.build import build
    from paramrob.requests.compare import compare as compared

    if reference is None:
        return build(asked, loaded(model, options))
    # The sidecar that an option names is the reference's; MODEL's own lies beside it.
    other = loaded(model, options | {"sidecar": None})
    return compared(asked, loaded(reference, options), other)
