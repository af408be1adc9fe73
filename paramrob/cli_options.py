"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

# Spelled out here because the modules that define them import numpy, which takes its time.
SOLVERS = ("auto", "bounds", "z3", "dreal", "icp")
METHODS = ("ibp", "crown-ibp", "crown", "alpha")
ARITHMETICS = ("real", "float32", "float16", "bfloat16")
ACCUMULATED = ("float32", "float16", "bfloat16", "float64")
CONVENTIONS = ("onnxruntime", "litert", "torchao")
KINDS = ("epsilon", "flips", "both")
FAIL_ON = ("refuted", "unknown")
OUTPUT_KINDS = ("probability", "logit", "probabilities", "logits", "value")

Command = TypeVar("Command", bound=Callable[..., Any])

_TIMEOUT = click.option(
    "--timeout",
    type=float,
    metavar="SECONDS",
    default=60.0,
    show_default=True,
    help="Engine seconds of the whole command.",
)

_SOLVER = click.option(
    "--solver",
    type=click.Choice(SOLVERS),
    metavar="NAME",
    default="auto",
    show_default=True,
    help=f"{', '.join(SOLVERS)} (see paramrob solvers).",
)
_MEMORY = click.option(
    "--memory",
    metavar="SIZE",
    default="1GiB",
    show_default=True,
    help="That the bounds at points may use, roughly; e.g. 512MiB.",
)
_DEVICE = click.option(
    "--device", type=click.Choice(("cpu", "cuda")), default="cpu", show_default=True
)
_JSON = click.option("--json", "json_file", metavar="FILE|-", help="Write the answer as JSON.")
_VERBOSE = click.option(
    "-v", "--verbose", is_flag=True, help="Say more; show internal errors in full."
)
_QUIET = click.option("-q", "--quiet", is_flag=True, help="Print one line.")


def _tolerance(default: float) -> Callable[[Command], Command]:
    return click.option(
        "--tolerance",
        type=float,
        metavar="T",
        default=default,
        show_default=True,
        help="Width at which a bracket is closed.",
    )


_MODEL = (
    click.option("--sidecar", metavar="FILE", help="Read this instead of MODEL's own .toml."),
    click.option(
        "--output",
        "output_kind",
        type=click.Choice(OUTPUT_KINDS),
        metavar="KIND",
        help=f"What the outputs mean: {', '.join(OUTPUT_KINDS)}.",
    ),
    click.option("--level", metavar="L", help="Where the label changes (a probability's is 0.5)."),
    click.option("--trust", is_flag=True, help="Load TorchScript, which can run code from it."),
    click.option(
        "--fold-batch-norm",
        is_flag=True,
        help="Fold batch norms into the layers before them; their parameters are what moves.",
    ),
)
_PERTURBATION = (
    click.option("--delta", metavar="D", help="Every parameter within D of its trained value."),
    click.option(
        "--perturbation",
        metavar="FILE.toml",
        help='Sizes by layer: [default] and [layer."NAME"] with delta, relative, weights, biases.',
    ),
    click.option(
        "--noise", metavar="RELATIVE", help="Every parameter within this share of its magnitude."
    ),
    click.option("--leave-out", metavar="LAYER", multiple=True, help="This layer does not move."),
)
_DEPLOYMENT = (
    click.option(
        "--quantize",
        metavar="FORMAT",
        help="Weights rounded: int2..int16, uint2..uint16, float16, bfloat16, float8_e4m3, "
        "float8_e5m2.",
    ),
    click.option(
        "--any-rounding",
        is_flag=True,
        help="Each to either neighbour of the format, not just to the nearest.",
    ),
    click.option(
        "--granularity",
        metavar="KIND",
        help="What shares a scale: tensor, channel or group:N.  [default: tensor]",
    ),
    click.option(
        "--symmetric/--affine",
        default=None,
        help="Where the zero point lies.  [default: symmetric if signed]",
    ),
    click.option(
        "--range",
        "integer_range",
        type=click.Choice(("full", "narrow")),
        help="With or without the lowest integer.  [default: the convention's]",
    ),
    click.option(
        "--convention",
        type=click.Choice(CONVENTIONS),
        metavar="TOOL",
        help=f"Whose scales: {', '.join(CONVENTIONS)}.  [default: onnxruntime]",
    ),
    click.option(
        "--bias",
        "bias_format",
        type=click.Choice(("float", "int32")),
        help="What biases become.  [default: float, in float formats that format]",
    ),
    click.option(
        "--quantize-layer",
        metavar="NAME=FORMAT",
        multiple=True,
        help="This layer in another format of the same kind.",
    ),
    click.option("--keep-float", metavar="LAYER", multiple=True, help="This layer is not rounded."),
    click.option(
        "--prune", metavar="FRACTION", help="The smallest weights become 0; then quantized, if so."
    ),
    click.option("--any-pruning", is_flag=True, help="Any subset of the weights becomes 0."),
    click.option(
        "--activations",
        metavar="FORMAT",
        help="Values between layers rounded: int2..int16, uint2..uint16.",
    ),
    click.option(
        "--calibration",
        metavar="POINTS",
        help="Their ranges from these points.  [default: ranges proved for what is asked]",
    ),
)
_BOX = (
    click.option(
        "--domain",
        metavar="BOX",
        help='"6.3:20.5,2.0:3.9" (one pair serves all inputs), or a CSV or TOML file.',
    ),
    click.option("--domain-from", metavar="DATA.csv", help="The bounding box of these rows."),
)
_DOMAIN = (
    *_BOX,
    click.option("--at", metavar="POINTS", help='"v1,v2,..." or a CSV or .npz file of points.'),
    click.option(
        "--input-radius", metavar="R", help="Each input of a point within R of it as well."
    ),
    click.option("--limit", type=int, metavar="N", help="Only the first N points."),
)
_PROPERTY = (
    click.option("--epsilon", metavar="E", help="The confidence moves by at most E."),
    click.option("--sigma", metavar="S", help="Labels stay at least S from the boundary."),
    click.option(
        "--property",
        "property_name",
        metavar="NAME",
        help="labels, confidence or margin; repeats what the thresholds imply.",
    ),
)
_ENGINE = (
    _SOLVER,
    click.option(
        "--cross-check",
        type=click.Choice(SOLVERS),
        metavar="NAME",
        help="A second solver, which has to agree.",
    ),
    click.option(
        "--encoding",
        type=click.Choice(("direct", "aggregated")),
        help="A variable per parameter, or a slack per neuron.  [default: the solver's]",
    ),
    click.option(
        "--no-presolve", is_flag=True, help="Do not bound the formula's variables beforehand."
    ),
    click.option(
        "--method",
        type=click.Choice(METHODS),
        metavar="NAME",
        help=f"Of the bounds at points: {', '.join(METHODS)}.  [default: what decides]",
    ),
    _MEMORY,
    _TIMEOUT,
    _tolerance(1e-6),
    _DEVICE,
)
_ARITHMETIC = (
    click.option(
        "--arithmetic",
        type=click.Choice(ARITHMETICS),
        metavar="FORMAT",
        default="real",
        show_default=True,
        help=f"What the network runs in: {', '.join(ARITHMETICS)}. At points.",
    ),
    click.option(
        "--accumulate",
        type=click.Choice(ACCUMULATED),
        metavar="FORMAT",
        help="What sums are formed in, with --arithmetic.  [default: float32]",
    ),
)
_RUNTIME = (
    click.option(
        "--runtime-steps",
        type=int,
        metavar="N",
        default=0,
        show_default=True,
        help="Each rounding of MODEL to a grid may be off by N steps of it.",
    ),
)
_OUTPUT = (
    _JSON,
    click.option(
        "--csv", "csv_file", metavar="FILE", help="One row a point; points that have one are done."
    ),
    click.option("--html", "html_file", metavar="FILE", help="Write the answer as a web page."),
    click.option("--witness", "witness_file", metavar="FILE.npz", help="Save the counterexample."),
    _VERBOSE,
    _QUIET,
)


_GATE = (
    click.option(
        "--fail-on",
        type=click.Choice(FAIL_ON),
        metavar="WHAT",
        default="unknown",
        show_default=True,
        help="refuted: what stays open exits with 0; unknown: it fails the gate as well.",
    ),
    click.option("--junit", "junit_file", metavar="FILE.xml", help="Write JUnit XML."),
    click.option(
        "--certificate",
        "certificate_file",
        metavar="FILE.json",
        help="Write what was proved, in one sentence and in full; only if it was.",
    ),
)


_BLAME = (
    click.option("--per-channel", metavar="LAYER", help="The output channels of this layer alone."),
    click.option("-o", "--output-file", metavar="FILE", help="A bar chart: .png, .svg or .pdf."),
    _SOLVER,
    _MEMORY,
    _TIMEOUT,
    _tolerance(1e-6),
    _DEVICE,
    _JSON,
    _VERBOSE,
    _QUIET,
)


_EXPORT = (
    click.option(
        "--encoding",
        type=click.Choice(("direct", "aggregated")),
        default="direct",
        show_default=True,
        help="A variable per parameter, or a slack per neuron.",
    ),
    click.option(
        "--format",
        "form",
        type=click.Choice(("smtlib", "dreal", "latex")),
        default="smtlib",
        show_default=True,
        help="SMT-LIB 2, dReal's dialect of it, or LaTeX.",
    ),
    click.option(
        "--no-presolve", is_flag=True, help="Do not bound neurons and fix ReLUs beforehand."
    ),
    click.option(
        "-o", "--output-file", metavar="FILE|-", default="-", help="Where to write the formula."
    ),
    click.option("-v", "--verbose", is_flag=True, help="Show internal errors in full."),
)


_HEATMAP = (
    click.option(
        "-o",
        "--output-file",
        metavar="FILE",
        help="The picture: .png, .svg or .pdf.",
    ),
    click.option(
        "--kind",
        type=click.Choice(KINDS),
        default="both",
        show_default=True,
        help="How far the confidence moves, which inputs flip, or both.",
    ),
    click.option("--x", "x_name", metavar="NAME", help="The input along the horizontal axis."),
    click.option("--y", "y_name", metavar="NAME", help="The input along the vertical axis."),
    click.option(
        "--fix",
        metavar="NAME=VALUE",
        multiple=True,
        help="Another input's value; inputs that are neither shown nor fixed are free.",
    ),
    click.option(
        "--points", type=int, metavar="N", help="Random points for epsilon.  [default: 1000]"
    ),
    click.option("--grid", type=int, metavar="N", help="Instead, N times N points in a grid."),
    click.option("--data", metavar="DATA.csv", help="Draw these rows, by class if it is there."),
    click.option(
        "--open-area",
        type=float,
        metavar="SHARE",
        default=0.005,
        show_default=True,
        help="Share of the area that may stay undecided.",
    ),
    _TIMEOUT,
    _tolerance(1e-3),
    click.option("--csv", "csv_file", metavar="FILE", help="Write the numbers as CSV."),
    click.option("--json", "json_file", metavar="FILE|-", help="Write the numbers as JSON."),
    click.option(
        "--html", "html_file", metavar="FILE", help="Write pictures and numbers as a page."
    ),
    click.option("-v", "--verbose", is_flag=True, help="Show internal errors in full."),
    _QUIET,
)


def _added(command: Command, *groups: Sequence[Callable[[Command], Command]]) -> Command:
    """Add options so that the help shows them in this order."""
    for group in reversed(groups):
        for option in reversed(group):
            command = option(command)
    return command


def heatmap_options(command: Command) -> Command:
    """Add the options of ``heatmap``, in the order that the help shows."""
    return _added(command, _PERTURBATION, _BOX, _MODEL, _HEATMAP)


def blame_options(command: Command) -> Command:
    """Add the options of ``blame``, in the order that the help shows."""
    return _added(command, _PERTURBATION, _DEPLOYMENT, _DOMAIN, _MODEL, _BLAME)


def per_layer_option(command: Command) -> Command:
    """Add ``--per-layer``, which belongs to ``estimate MODEL bits``."""
    said = "With bits: widths layer by layer, of the least total size that a descent finds."
    return click.option("--per-layer", is_flag=True, help=said)(command)


def export_options(command: Command) -> Command:
    """Add the options of ``export``, in the order that the help shows."""
    return _added(command, _PERTURBATION, _DEPLOYMENT, _DOMAIN, _PROPERTY, _MODEL, _EXPORT)


def shared_options(command: Command) -> Command:
    """Add the options of ``check`` and ``estimate``, in the order that the help shows."""
    subject = (_PERTURBATION, _DEPLOYMENT, _DOMAIN, _PROPERTY, _MODEL)
    return _added(command, *subject, _ARITHMETIC, _ENGINE, _OUTPUT)


def compare_options(command: Command) -> Command:
    """Add the options of ``compare``, in the order that the help shows."""
    return _added(
        command, _RUNTIME, _PERTURBATION, _DOMAIN, _PROPERTY, _MODEL, _ARITHMETIC, _ENGINE, _OUTPUT
    )


def gate_options(command: Command) -> Command:
    """Add the options of a release gate; they stand below those of the command itself."""
    return _added(command, _GATE)
