"""Which layer is to blame: how far each part of a box of parameters moves the confidence.

Of a box of parameters a part is what one layer (or one output channel of a layer) may do. Two
questions are asked about each: how far the confidence moves if this part alone moves and all other
parameters are as trained, and how far if everything but this part moves. Neither of the two, nor
their sum over the parts, bounds what the whole box does: parts may add up, amplify or cancel each
other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from paramrob.clock import Clock
from paramrob.engine import Settings
from paramrob.errors import InputError
from paramrob.largest_epsilon import OPEN, is_searched, largest, narrow
from paramrob.models.model import Model
from paramrob.models.network import BatchNorm, Conv, Dense, Network
from paramrob.perturbation import Mask, Perturbation
from paramrob.problem import Problem, UncertainNetwork
from paramrob.requests.build import Asked, Request, build
from paramrob.requests.suggest import nearest
from paramrob.solve import interrupts
from paramrob.verdict import Bracket

_Part = dict[str, Mask | None]
_STILL = Bracket(0.0, 0.0)


@dataclass(frozen=True)
class Share:
    """What one part of the box does.

    Attributes:
        name: of the layer (several that share parameters count as one), or number of the channel.
        values: how many numbers the part has.
        alone: the largest change of the confidence where only this part moves.
        without: the same where everything else moves.
    """

    name: str
    values: int
    alone: Bracket
    without: Bracket


@dataclass(frozen=True)
class Shares:
    """The answer: every part, ranked by the upper end of ``alone``, ties by its lower end.

    Attributes:
        request: what was asked.
        shares: of all parts.
        whole: the largest change where everything moves.
        layer: whose output channels the parts are; ``None`` where they are layers.
        seconds: that the engine took.
        interrupted: whether the user stopped the run.
    """

    request: Request
    shares: tuple[Share, ...]
    whole: Bracket
    layer: str | None = None
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def proved_first(self) -> Share | None:
        """The part that is proved to do most alone.

        Its lower end, attained by a witness, exceeds the upper end of every other part; ``None``
        where no part's does, or where there is only one.
        """
        first, *others = self.shares
        if not others or not first.alone.lower > max(s.alone.upper for s in others):
            return None
        return first

    def is_closed(self, tolerance: float) -> bool:
        """Whether every bracket is within the tolerance."""
        brackets = [b for s in self.shares for b in (s.alone, s.without)]
        return all(b.width <= tolerance for b in (self.whole, *brackets))


def shares_of(
    asked: Asked, model: Model, settings: Settings, per_channel: str | None = None
) -> Shares:
    """Bracket what each layer, or each output channel of one, does to the confidence.

    Args:
        asked: for epsilon; any box of parameters, and where.
        model: whose layers are meant.
        settings: how to solve; ``timeout`` is shared by all questions, those left open first get
            what the others left.
        per_channel: the layer whose output channels are the parts.

    Raises:
        InputError: no such layer, a layer without channels or one that does not move, or a
            question that cannot be asked.
        SoundnessError: two results contradict each other.
    """
    if asked.quantity != "epsilon":
        raise InputError("shares are those of epsilon; ask to estimate epsilon")
    if asked.arithmetic != "real":
        raise InputError("shares are those of real numbers: leave the arithmetic out")
    if asked.activations is not None:
        raise InputError("shares are those of parameters: leave --activations out")
    request = build(asked, model)
    network, box = model.network, request.perturbation
    parts = _layers(network, box) if per_channel is None else _channels(network, box, per_channel)
    questions = _questions(request, parts)
    clock = Clock(settings.timeout)
    found, interrupted = _answers(questions, settings, clock)
    whole, *rest = (largest(brackets) for brackets in found)
    shares = [
        Share(name, _count(network, part), alone, without)
        for (name, part), alone, without in zip(parts.items(), rest[::2], rest[1::2], strict=True)
    ]
    shares.sort(key=lambda s: (-s.alone.upper, -s.alone.lower))
    seconds = settings.timeout - clock.left
    return Shares(request, tuple(shares), whole, per_channel, seconds, interrupted)


def _layers(network: Network, box: Perturbation) -> dict[str, _Part]:
    """Return the parts by layer; layers that share a parameter are one part."""
    moved = set(box.parameters)
    groups: list[tuple[list[str], set[str]]] = []
    for layer, names in network.layer_parameters().items():
        ours = moved & set(names)
        if not ours:
            continue
        names_of, all_ours = [layer], set(ours)
        for group in [g for g in groups if g[1] & ours]:
            groups.remove(group)
            names_of, all_ours = [*group[0], *names_of], group[1] | all_ours
        groups.append((names_of, all_ours))
    if not groups:
        raise InputError("no layer moves: give a perturbation that moves one")
    return {", ".join(layers): dict.fromkeys(sorted(parameters)) for layers, parameters in groups}


def _channels(network: Network, box: Perturbation, layer: str) -> dict[str, _Part]:
    """Return the parts by output channel of one layer, named ``0``, ``1``, ..."""
    nodes = {node.name: node for node in network.nodes}
    layers = network.layer_parameters()
    if layer not in layers:
        raise InputError(f"no layer {layer!r} with parameters; {nearest(layer, layers)}")
    if not isinstance(nodes[layer].op, (Dense, Conv, BatchNorm)):
        raise InputError(
            f"layer {layer!r} has no output channels; name a dense, convolutional or batch norm one"
        )
    names = [name for name in layers[layer] if name in box.parameters]
    if not names:
        raise InputError(f"layer {layer!r} does not move; name one that does")
    return {
        str(channel): {name: _rows(network, name, channel) for name in names}
        for channel in range(network.parameters[names[0]].value.shape[0])
    }


def _rows(network: Network, name: str, channel: int) -> Mask:
    """Return which values of a parameter belong to an output channel, its first axis."""
    mask = np.zeros(network.parameters[name].value.shape, dtype=np.bool_)
    mask[channel] = True
    return mask


def _count(network: Network, part: _Part) -> int:
    sizes = [network.parameters[n].value.size if m is None else m.sum() for n, m in part.items()]
    return int(sum(sizes))


def _questions(request: Request, parts: dict[str, _Part]) -> list[Sequence[Problem] | None]:
    """Return the problems of the whole box, then of each part alone and of all but it.

    ``None`` stands for a box in which nothing moves.
    """
    box = request.perturbation
    found: list[Sequence[Problem] | None] = [request.problems]
    for part in parts.values():
        rest: _Part = {}
        for name in box.parameters:
            if name not in part:
                rest[name] = None
            elif (mask := part[name]) is not None and not mask.all():
                rest[name] = ~mask
        found += [_restricted(request, part), _restricted(request, rest) if rest else None]
    return found


def _restricted(request: Request, part: _Part) -> Sequence[Problem]:
    box = request.perturbation.only(part)
    uncertain = UncertainNetwork(request.model.network, box)
    return [replace(problem, uncertain=uncertain) for problem in request.problems]


def _answers(
    questions: Sequence[Sequence[Problem] | None], settings: Settings, clock: Clock
) -> tuple[list[list[Bracket]], bool]:
    """Bracket epsilon at every point of each question; whether the user stopped that as well.

    First the pass over graphs goes through all of them, as far as it knows them; then each that
    is open has its share of the time, and what is open then gets what the others left.
    """
    found = [[_STILL] if q is None else [OPEN] * len(q) for q in questions]
    with interrupts() as stopped:
        try:
            for search in (False, True, True):
                _round(questions, found, settings, clock, stopped, search)
        except KeyboardInterrupt:
            return found, True
        return found, stopped()


def _round(
    questions: Sequence[Sequence[Problem] | None],
    found: list[list[Bracket]],
    settings: Settings,
    clock: Clock,
    stopped: Callable[[], bool],
    search: bool,
) -> None:
    """Narrow what is open, each question within an equal share of the time that is left."""
    todo = [
        (problems, brackets)
        for problems, brackets in zip(questions, found, strict=True)
        if problems is not None and _is_open(problems[0], largest(brackets), settings, search)
    ]
    for done, (problems, brackets) in enumerate(todo):
        left = clock.left / (len(todo) - done)
        if left <= 0 or stopped():
            return
        narrow(problems, brackets, replace(settings, timeout=left), search)


def _is_open(problem: Problem, bracket: Bracket, settings: Settings, search: bool) -> bool:
    """Whether a question is worth asking again: without a search only what is unbounded is."""
    if bracket.width <= settings.tolerance:
        return False
    return math.isinf(bracket.upper) or (search and is_searched(problem, settings))
