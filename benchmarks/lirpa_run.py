"""One engine on one question, in a process of its own, so that its peak of memory is its own.

``benchmarks.lirpa`` starts it; by hand: ``python -m benchmarks.lirpa_run JOB.json ANSWER.json``.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.graphs import DIGITS, bound_pass_of, digits, he_network, interval_ends
from case_studies.digits import train
from paramrob.engine import Method
from paramrob.models.network import Array, Network

Engine = Literal["paramrob", "auto_LiRPA"]
RANDOM = (784, 512, 512, 10)
SEED = 0
THEIR_METHODS: dict[Method, str] = {
    "ibp": "IBP", "crown-ibp": "CROWN-IBP", "crown": "CROWN", "alpha": "alpha-CROWN"
}  # fmt: skip
# auto_LiRPA's own tests of boxed weights switch these off: it cannot bound single neurons then.
ALL_NEURONS = {
    "sparse_intermediate_bounds": False,
    "sparse_conv_intermediate_bounds": False,
    "sparse_intermediate_bounds_with_ibp": False,
}


@dataclass(frozen=True)
class Job:
    """What is bounded, and how.

    Attributes:
        engine: who bounds.
        network: one of the digits networks, or ``random``.
        method: of the bounds.
        delta: half-width of every parameter's interval, a decimal.
        radius: half-width of every input's interval.
        points: how many inputs.
        at_once: how many of them in one call.
        single: the peer in float32, its usual type, instead of float64.
        repeat: how many timed runs over all points.
        budget: seconds after which no further run is begun.
    """

    engine: Engine
    network: str
    method: Method
    delta: str
    radius: float
    points: int
    at_once: int
    single: bool = False
    repeat: int = 5
    budget: float = 40.0


@dataclass(frozen=True)
class Answer:
    """What came out.

    Attributes:
        lower: of the logits, ``(points, out)``.
        upper: of the logits, ``(points, out)``.
        seconds: of the CPU, user and system, for each run over all points.
        peak: most memory that the process held, in GB, libraries included.
    """

    lower: list[list[float]]
    upper: list[list[float]]
    seconds: list[float]
    peak: float


def question(name: str, count: int) -> tuple[Network, Array]:
    """Return a network and inputs ``(count, in)``."""
    if name == "random":
        rng = np.random.default_rng(SEED)
        return he_network(RANDOM, rng), rng.uniform(size=(count, RANDOM[0]))
    network, x, _ = digits()[name]
    return network, x[:count]


def run(job: Job) -> Answer:
    """Bound the logits ``job.repeat`` times, after one call that is not timed."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32 if job.single else torch.float64)
    x = torch.from_numpy(question(job.network, job.points)[1]).to(torch.get_default_dtype())
    batches = [x[i : i + job.at_once] for i in range(0, len(x), job.at_once)]
    call = _ours(job) if job.engine == "paramrob" else _theirs(job, batches[0])
    call(batches[0])
    seconds: list[float] = []
    found: list[tuple[Tensor, Tensor]] = []
    while not seconds or (len(seconds) < job.repeat and sum(seconds) < job.budget):
        start = time.process_time()
        found = [call(batch) for batch in batches]
        seconds.append(time.process_time() - start)
    lower, upper = (torch.cat([ends[i] for ends in found]).double() for i in (0, 1))
    return Answer(lower.tolist(), upper.tolist(), seconds, _peak())


Call = Callable[[Tensor], tuple[Tensor, Tensor]]


def _ours(job: Job) -> Call:
    bound_pass, _ = bound_pass_of(question(job.network, 1)[0], job.delta)
    return lambda x: interval_ends(bound_pass, x, job.method, job.radius)


def _theirs(job: Job, batch: Tensor) -> Call:
    from auto_LiRPA import BoundedModule, BoundedTensor, PerturbationLpNorm

    boxed = float(job.delta) > 0
    options = ALL_NEURONS if boxed else {}
    module = _boxed(_module(job.network), float(job.delta)) if boxed else _module(job.network)
    # It reads no Unflatten: images reach it as images.
    shape = (-1, 1, 8, 8) if job.network == "conv" else (-1, batch.shape[1])
    model = BoundedModule(module, batch.reshape(shape), bound_opts=options, device="cpu")
    method = THEIR_METHODS[job.method]

    def call(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.reshape(shape)
        if job.radius:
            x = BoundedTensor(x, PerturbationLpNorm(norm=float("inf"), eps=job.radius))
        with torch.set_grad_enabled(job.method == "alpha"):
            lower, upper = model.compute_bounds(x=(x,), method=method)
        return lower.detach(), upper.detach()

    return call


def _module(name: str) -> nn.Module:
    """Return the network for torch, in the default type."""
    if name == "random":
        return _random_module()
    module = train.MAKERS[name]()
    module.load_state_dict(torch.export.load(DIGITS / f"{name}.pt2").state_dict)
    if isinstance(module[0], nn.Unflatten):
        module = nn.Sequential(*list(module)[1:])
    return module.to(torch.get_default_dtype()).requires_grad_(False).eval()


def _random_module() -> nn.Module:
    network, _ = question("random", 1)
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(RANDOM)):
        layer = nn.Linear(before, after)
        for held, name in ((layer.weight, f"w{i}"), (layer.bias, f"b{i}")):
            held.data = torch.from_numpy(network.parameters[name].value).to(held.dtype)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).requires_grad_(False)


def _boxed(module: nn.Module, delta: float) -> nn.Module:
    """Put every parameter of ``module`` in its interval."""
    from auto_LiRPA import BoundedParameter, PerturbationLpNorm

    for part in list(module.modules()):
        for name, value in list(part.named_parameters(recurse=False)):
            box = PerturbationLpNorm(norm=float("inf"), eps=delta)
            setattr(part, name, BoundedParameter(value.data, box))
    return module


def _peak() -> float:
    """Return the most memory that this process held, in GB.

    A started process inherits its parent's ``ru_maxrss``, hence the kernel's own figure first.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Read a job, run it and write the answer, or ``{"failed": ...}``."""
    job = Job(**json.loads(Path(sys.argv[1]).read_text()))
    if job.engine not in get_args(Engine):
        sys.exit(f"{job.engine} is no engine")
    warnings.simplefilter("ignore")
    answer: dict[str, Any]
    try:
        answer = asdict(run(job))
    except Exception as error:  # whatever the peer raises is what the table is to say
        if job.engine == "paramrob":
            raise
        said = (str(error).strip().splitlines() or [""])[0]
        answer = {"failed": f"{type(error).__name__}: {said}".rstrip(": ")}
    Path(sys.argv[2]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
