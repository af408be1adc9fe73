"""The bound pass over graphs: width, speed and memory on image-sized classifiers.

    python -m benchmarks.graphs              # everything below
    python -m benchmarks.graphs --only speed

*width*: logit intervals on the three digits networks, 100 points, three deltas: the mean ratio of
each method's width to what a gradient attack reaches (on ten of them), and how often CROWN is
wider than a plain CROWN written on its own, or than intervals. *speed*: points a
second through 64-100-100-10, one input through 784-512-512-10, median of ``--repeat`` runs
(beside auto_LiRPA: ``benchmarks.lirpa``). *labels*: what the whole engine leaves open of 100 points
within a minute. *convolution*: the share proved and refuted over delta, and 10,000 sampled
parameter vectors against the bounds. *inputs*: input boxes without any perturbation of parameters.

Exit code 1: a sample outside its bounds.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import paramrob
from paramrob import engine
from paramrob.bounds.graph.alpha import optimised
from paramrob.bounds.graph.attack import Attack
from paramrob.bounds.graph.crown import GraphPass
from paramrob.bounds.graph.program import lower
from paramrob.bounds.graph.sharpen import sharpened
from paramrob.domain import Point
from paramrob.engine import METHODS, Method, Settings
from paramrob.models.model import OutputInfo
from paramrob.models.network import Activation, Array, Dense, Input, Network, Node, Parameter
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork
from paramrob.properties import Property
from paramrob.verdict import Verdict
from tests.bounds.graph.plain_crown import plain_crown, plain_intervals
from tests.bounds.graph.plain_graph import plain_graph

RESULTS = Path(__file__).parent / "results" / "graphs.md"
DIGITS = Path(__file__).parent.parent / "case_studies" / "digits"
DELTAS = ("0.0005", "0.001", "0.005")
LOGITS = OutputInfo("logits", None)
PARTS = ("width", "speed", "labels", "convolution", "inputs")


def main() -> None:
    """Run, print and write the tables."""
    options = _options()
    torch.set_num_threads(options.threads)
    wrong: list[str] = []
    lines = []
    for line in _report(options, wrong):
        print(line, flush=True)
        lines.append(line)
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text("\n".join(lines) + "\n")
    if wrong:
        sys.exit("\n".join(wrong))


def _report(options: argparse.Namespace, wrong: list[str]) -> Iterator[str]:
    yield (
        f"paramrob {paramrob.__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {platform.machine()}; {options.threads} thread(s), float64."
    )
    parts: dict[str, Callable[[], Iterator[str]]] = {
        "width": lambda: _widths(options),
        "speed": lambda: _speed(options),
        "labels": lambda: _labels(options),
        "convolution": lambda: _convolution(options, wrong),
        "inputs": _inputs,
    }
    for name in PARTS:
        if options.only in ("", name):
            yield ""
            yield from parts[name]()


def digits() -> dict[str, tuple[Network, Array, Array]]:
    """Return the committed networks with test points and classes."""
    held = np.load(DIGITS / "test.npz")
    x, y = held["x"].astype(np.float64), held["y"]
    found = {}
    for path in sorted(DIGITS.glob("*.pt2")):
        network = paramrob.load(path).network
        found[path.stem] = (network, x.reshape(len(x), -1), y)
    return found


def bound_pass_of(network: Network, delta: str) -> tuple[GraphPass, UncertainNetwork]:
    """Return the bound pass, and the network with every parameter within ``delta``."""
    box = Perturbation.uniform(network, Fraction(delta))
    return GraphPass(lower(network, box, LOGITS)), UncertainNetwork(network, box)


def interval_ends(
    bound_pass: GraphPass, x: Tensor, method: Method, radius: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the logits' least and largest values ``(batch, out)``, inputs within ``radius``."""
    count = bound_pass.program.steps[-1].size
    eye = torch.eye(count, dtype=torch.float64)
    rows = torch.cat([eye, -eye]).expand(x.shape[0], -1, -1)
    analysis = bound_pass.analyse(x - radius, x + radius, method)
    least = bound_pass.bound(analysis, rows, method)
    if method == "alpha":
        analysis = sharpened(bound_pass, analysis)
        least = torch.maximum(least, optimised(analysis, rows, 20))
    return least[:, :count], -least[:, count:]


def _intervals(bound_pass: GraphPass, x: Tensor, method: Method) -> Tensor:
    """Return the logits' widths ``(batch, out)``."""
    least, most = interval_ends(bound_pass, x, method)
    return most - least


def attacked_ends(
    uncertain: UncertainNetwork, x: Tensor, radius: float = 0.0, steps: int = 30
) -> tuple[Tensor, Tensor]:
    """Return the least and largest logits ``(batch, out)`` that a search reaches."""
    attack = Attack(uncertain, uncertain.network.nodes[-1].name)
    count = uncertain.network.output_size
    ends = []
    for sign in (-1.0, 1.0):
        best = []
        for k in range(count):
            aims = torch.zeros(len(x), count, dtype=torch.float64)
            aims[:, k] = sign
            found = attack.run(x - radius, x + radius, aims, lambda r, a: r @ a, steps)
            best.append(sign * found.value)
        ends.append(torch.stack(best, 1))
    return ends[0], ends[1]


def parameter_vectors(network: Network, delta: str, samples: int) -> Iterator[dict[str, Array]]:
    """Yield random parameters within ``delta``, vertices of the box and others in turn."""
    rng = np.random.default_rng(0)
    for i in range(samples):
        chosen = {}
        for name, parameter in network.parameters.items():
            if not parameter.fixed:
                share = rng.uniform(-1, 1, size=parameter.value.shape)
                share = np.sign(share) if i % 2 else share
                chosen[name] = parameter.value + float(delta) * share
        yield chosen


def _widths(options: argparse.Namespace) -> Iterator[str]:
    yield "Logit intervals, mean width over the attack's (30 steps)"
    yield ""
    yield _line(
        ["network", "delta", *METHODS, "wider than plain CROWN (mean ratio)", "than intervals"]
    )
    yield _line(["---"] * (len(METHODS) + 4))
    for name, (network, x, _) in digits().items():
        for delta in DELTAS:
            bound_pass, uncertain = bound_pass_of(network, delta)
            chosen = torch.from_numpy(x[: options.points])
            widths: dict[str, Tensor] = {}
            few = chosen[: options.attacked]
            for method in METHODS:
                points = few if method == "alpha" else chosen
                parts = [
                    _intervals(bound_pass, points[i : i + 10], method)
                    for i in range(0, len(points), 10)
                ]
                widths[method] = torch.cat(parts)
            least, most = attacked_ends(uncertain, few)
            reached = most - least
            ratios = [f"{(widths[m][: len(few)] / reached).mean():.3f}" for m in METHODS]
            wider = _wider(network, chosen.numpy(), delta, widths["crown"])
            intervals = int((widths["crown"] > widths["ibp"] * (1 + 1e-6)).sum())
            total = widths["crown"].numel()
            yield _line([name, delta, *ratios, wider, f"{intervals} of {total}"])


def is_chain(network: Network) -> bool:
    """Whether a network is a chain of dense layers."""
    return all(isinstance(n.op, (Input, Dense, Activation)) for n in network.nodes)


def plain_widths(network: Network, x: Array, delta: str, radius: float = 0.0) -> Array:
    """Return the widths of a plain CROWN, ``(points, out)``."""
    bound = plain_crown if is_chain(network) else plain_graph
    found = [bound(network, p, float(delta), radius) for p in x]
    return np.array([high - low for low, high in found])


def _wider(network: Network, x: Array, delta: str, found: Tensor) -> str:
    width, plain = found.numpy(), plain_widths(network, x, delta)
    more = int((width > plain * (1 + 1e-6)).sum())
    if is_chain(network):
        alone = [np.subtract(*plain_intervals(network, p, float(delta))[::-1]) for p in x]
        if (width > np.array(alone) * (1 + 1e-6)).any():
            return f"{more} of {width.size}, and than plain intervals"
    return f"{more} of {width.size} ({(width / plain).mean():.3f})"


def _median(run: Callable[[], object], repeat: int) -> float:
    seconds = []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def _speed(options: argparse.Namespace) -> Iterator[str]:
    yield f"Seconds, median of {options.repeat}; peak memory of the process so far"
    yield ""
    yield _line(["work", "method", "s", "points a second", "GB"])
    yield _line(["---"] * 5)
    rng = np.random.default_rng(0)
    for widths, points in (((64, 100, 100, 10), 100), ((784, 512, 512, 10), 1)):
        network = he_network(widths, rng)
        x = torch.from_numpy(rng.uniform(size=(points, widths[0])))
        bound_pass, _ = bound_pass_of(network, "0.001")
        for method in METHODS:
            s = _median(partial(_intervals, bound_pass, x, method), options.repeat)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            name = "-".join(map(str, widths)) + f", {points} point(s)"
            yield _line([name, method, f"{s:.3f}", f"{points / s:.0f}", f"{peak:.2f}"])


def he_network(widths: tuple[int, ...], rng: np.random.Generator) -> Network:
    """Return a ReLU network with He weights and small biases."""
    nodes = [Node("x", Input(), (), (widths[0],))]
    parameters = []
    for i, (a, b) in enumerate(pairwise(widths)):
        if i:
            nodes.append(Node(f"r{i}", Activation("relu"), (nodes[-1].name,), (a,)))
        parameters += [
            Parameter(f"w{i}", rng.normal(size=(b, a)) * np.sqrt(2 / a)),
            Parameter(f"b{i}", 0.1 * rng.normal(size=b)),
        ]
        nodes.append(Node(f"d{i}", Dense(f"w{i}", f"b{i}"), (nodes[-1].name,), (b,)))
    return Network(nodes, parameters)


def _problems(network: Network, x: Array, delta: str) -> list[Problem]:
    box = UncertainNetwork(network, Perturbation.uniform(network, Fraction(delta)))
    return [
        Problem(network, box, Point(tuple(map(float, p))), LOGITS, Property("labels")) for p in x
    ]


def _decided(problems: list[Problem]) -> tuple[int, int, int]:
    """Return how many the whole engine proves, refutes and leaves open within a minute."""
    found = [o.verdict for _, o in engine.decide_points(problems, Settings(timeout=60))]
    proved, refuted = (found.count(v) for v in (Verdict.ROBUST, Verdict.NOT_ROBUST))
    return proved, refuted, len(problems) - proved - refuted


def _labels(options: argparse.Namespace) -> Iterator[str]:
    yield "Labels at 100 points, the whole engine, a minute"
    yield ""
    yield _line(["network", "delta", "proved", "refuted", "open", "s"])
    yield _line(["---"] * 6)
    for name, (network, x, _) in digits().items():
        for delta in DELTAS:
            start = time.perf_counter()
            found = _decided(_problems(network, x[:100], delta))
            seconds = time.perf_counter() - start
            yield _line([name, delta, *map(str, found), f"{seconds:.1f}"])


def _convolution(options: argparse.Namespace, wrong: list[str]) -> Iterator[str]:
    for name, (network, x, y) in digits().items():
        if "conv" not in network.architecture:
            continue
        shaped = x[:100].reshape(-1, *network.input_shape)
        correct = network.evaluate(shaped).argmax(1) == y[:100]
        yield f"{name} ({network.architecture}, {network.parameter_count} parameters)"
        yield ""
        yield _line(["delta", "of the correct: proved", "refuted", "open"])
        yield _line(["---"] * 4)
        for delta in ("0.0001", "0.0002", "0.0005", "0.001", "0.002"):
            problems = _problems(network, x[:100][correct], delta)
            shares = [f"{100 * n / len(problems):.0f} %" for n in _decided(problems)]
            yield _line([delta, *shares])
        yield ""
        yield _sampled(network, x[:5], "0.001", options.samples, wrong)


def _sampled(network: Network, x: Array, delta: str, samples: int, wrong: list[str]) -> str:
    """Hold random parameter vectors, vertices and interior ones, against the bounds."""
    bound_pass, _ = bound_pass_of(network, delta)
    points = torch.from_numpy(x)
    count = network.output_size
    eye = torch.eye(count, dtype=torch.float64)
    analysis = bound_pass.analyse(points, points, "crown")
    least = bound_pass.bound(analysis, torch.cat([eye, -eye]).expand(len(x), -1, -1)).numpy()
    outside = 0
    shaped = x.reshape(-1, *network.input_shape)
    for chosen in parameter_vectors(network, delta, samples):
        seen = network.evaluate(shaped, chosen).reshape(len(x), -1)
        outside += int((np.concatenate([seen, -seen], 1) < least - 1e-9).sum())
    if outside:
        wrong.append(f"{outside} sampled logits outside their bounds")
    return f"{samples} sampled parameter vectors at delta {delta}: {outside} logits outside."


def _inputs() -> Iterator[str]:
    yield "Input boxes, parameters fixed, 20 points: mean width over a plain CROWN's"
    yield ""
    yield _line(["network", "radius", "crown", "alpha", "crown wider than plain CROWN"])
    yield _line(["---"] * 5)
    for name, (network, x, _) in digits().items():
        bound_pass, _ = bound_pass_of(network, "0")
        points = torch.from_numpy(x[:20])
        for radius in (0.005, 0.02):
            plain = plain_widths(network, x[:20], "0", radius)
            eye = torch.eye(network.output_size, dtype=torch.float64)
            rows = torch.cat([eye, -eye]).expand(20, -1, -1)
            analysis = bound_pass.analyse(points - radius, points + radius, "crown")
            widths = []
            for least in (bound_pass.bound(analysis, rows), optimised(analysis, rows, 20)):
                widths.append(-(least[:, : len(eye)] + least[:, len(eye) :]).numpy())
            ratios = [f"{(width / plain).mean():.4f}" for width in widths]
            wider = f"{int((widths[0] > plain * (1 + 1e-6)).sum())} of {plain.size}"
            yield _line([name, str(radius), *ratios, wider])


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", choices=["", *PARTS], help="one of the tables")
    parser.add_argument("--points", type=int, default=100, help="points of the widths (100)")
    parser.add_argument(
        "--attacked", type=int, default=10, help="of them attacked, and given to alpha (10)"
    )
    parser.add_argument("--samples", type=int, default=10_000, help="parameter vectors (10000)")
    parser.add_argument("--repeat", type=int, default=5, help="timed runs (5)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (2)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the tables go")
    return parser.parse_args()


if __name__ == "__main__":
    main()
