"""Mixed precision: a width for each layer, of small total size, that keeps a property with a proof.

The search is a greedy descent. It starts from the fewest bits that are proved for all layers
alike, then lowers, one width at a time, the layer that saves most as long as the property stays
proved; each layer and width is asked about once. So the result is proved, and its size is an upper
bound on the least one: another assignment may be smaller still.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from paramrob.bit_widths import WIDTHS, FewestBits, decide_widths, integer_scheme
from paramrob.clock import Clock
from paramrob.engine import Settings
from paramrob.errors import SoundnessError
from paramrob.models.model import Model
from paramrob.models.network import Conv, Dense, Network
from paramrob.quantize.scheme import Scheme
from paramrob.quantize.targets import Targets
from paramrob.requests.build import Asked, Command, Request, build
from paramrob.solve import solve
from paramrob.verdict import Outcome, Verdict

_UNIFORM, _LAST = 0.3, 0.3
"""Of the time, for the widths of all layers alike, and for the proof of the result."""


@dataclass(frozen=True)
class LayerWidth:
    """One layer (or several that share weights), its number of weights and its width in bits."""

    layers: tuple[str, ...]
    weights: int
    bits: int

    @property
    def size(self) -> int:
        """Bits of all weights; scales and zero points are not counted."""
        return self.weights * self.bits


@dataclass(frozen=True)
class MixedWidths:
    """What the search found.

    Attributes:
        uniform: the answers for all layers alike.
        start: the fewest of those bits that are proved; ``None`` where none are.
        widths: layer by layer, in the network's order; empty where no start was found.
        scheme: that rounds so; ``None`` likewise.
        request: the question of a check with that scheme; ``None`` likewise.
        outcome: the answer to it, proved anew: only ``ROBUST`` makes the result one.
        asked: how many assignments were asked about.
        seconds: in the engine.
    """

    uniform: FewestBits
    start: int | None
    widths: tuple[LayerWidth, ...] = ()
    scheme: Scheme | None = None
    request: Request | None = None
    outcome: Outcome | None = None
    asked: int = 0
    seconds: float = 0.0

    @property
    def proved(self) -> bool:
        """Whether the assignment was proved from scratch."""
        return self.outcome is not None and self.outcome.verdict is Verdict.ROBUST

    @property
    def size(self) -> int:
        """Bits of all rounded weights."""
        return sum(layer.size for layer in self.widths)

    @property
    def uniform_size(self) -> int:
        """The same with every layer at the fewest bits that are proved for all alike."""
        return sum(layer.weights for layer in self.widths) * (self.start or 0)


def mixed_widths(
    asked: Asked, model: Model, settings: Settings, widths: Sequence[int] = WIDTHS
) -> MixedWidths:
    """Search for widths layer by layer, and prove what was found from scratch.

    Args:
        asked: with a scheme (or integer format) whose width is replaced, a property and where.
        model: what is quantized.
        settings: how to solve, with the time for everything.
        widths: that may be used, in bits, the widest first.

    Raises:
        InputError: no integer format, or a question that cannot be asked.
        SoundnessError: what the search proved is refuted when it is asked again.
    """
    clock = Clock(settings.timeout)
    scheme = integer_scheme(asked)
    share = replace(settings, timeout=_UNIFORM * settings.timeout)
    uniform = decide_widths(asked, model, share, widths)
    proved = [w.bits for w in uniform.widths if w.outcome.verdict is Verdict.ROBUST]
    stopped = any(w.outcome.interrupted for w in uniform.widths)
    if not proved or stopped:
        return MixedWidths(uniform, None, seconds=settings.timeout - clock.left)
    start = min(proved)
    layers = [LayerWidth(n, c, start) for n, c in _layers(model.network, scheme)]
    search = _Descent(asked, model, settings, scheme, clock)
    found = search.run(layers, [bits for bits in widths if bits < start])
    return _proved_anew(search, uniform, start, found)


def scheme_of(scheme: Scheme, widths: Sequence[LayerWidth]) -> Scheme:
    """Return the scheme that gives each layer its width; the most common one is its format."""
    sign = "u" if scheme.is_unsigned else ""
    counts = Counter(part.bits for part in widths for _ in part.layers)
    base = max(counts, key=lambda bits: (counts[bits], bits))
    own = [(n, f"{sign}int{p.bits}") for p in widths for n in p.layers if p.bits != base]
    return replace(scheme, format=f"{sign}int{base}", layers=tuple(own))


class _Descent:
    """The search: one question after another, within the time."""

    def __init__(
        self, asked: Asked, model: Model, settings: Settings, scheme: Scheme, clock: Clock
    ) -> None:
        self.asked, self.model, self.settings, self.scheme = asked, model, settings, scheme
        self.clock, self.count = clock, 0

    def run(self, layers: list[LayerWidth], below: Sequence[int]) -> list[LayerWidth]:
        """Lower widths while the property stays proved.

        Args:
            layers: as they start.
            below: the widths that may be tried, the widest first.
        """
        untried = [list(below) for _ in layers]
        end = _LAST * self.settings.timeout
        while any(untried) and self.clock.left > end:
            at = max(
                (i for i, bits in enumerate(untried) if bits),
                key=lambda i: layers[i].weights * (layers[i].bits - untried[i][0]),
            )
            trial = list(layers)
            trial[at] = replace(layers[at], bits=untried[at].pop(0))
            left = (self.clock.left - end) / (1 + sum(map(len, untried)))
            outcome = self.answer("estimate", trial, left)[1]
            if outcome.interrupted:
                break
            if outcome.verdict is Verdict.ROBUST:
                layers = trial
        return layers

    def answer(
        self, command: Command, layers: Sequence[LayerWidth], seconds: float
    ) -> tuple[Request, Outcome]:
        """Ask whether the property holds with these widths; a ``check`` adds brackets."""
        self.count += 1
        scheme = scheme_of(self.scheme, layers)
        request = build(replace(self.asked, command=command, quantize=scheme), self.model)
        return request, solve(request, replace(self.settings, timeout=max(seconds, 0.01)))


def _proved_anew(
    search: _Descent, uniform: FewestBits, start: int, layers: Sequence[LayerWidth]
) -> MixedWidths:
    request, outcome = search.answer("check", layers, search.clock.left)
    if outcome.verdict is Verdict.NOT_ROBUST:
        raise SoundnessError(
            "widths that were proved to keep the property are refuted when asked again; this is a "
            "defect of paramrob: please report it with the model"
        )
    return MixedWidths(
        uniform,
        start,
        tuple(layers),
        scheme=scheme_of(search.scheme, layers),
        request=request,
        outcome=outcome,
        asked=search.count,
        seconds=search.settings.timeout - search.clock.left,
    )


def _layers(network: Network, scheme: Scheme) -> list[tuple[tuple[str, ...], int]]:
    """Return the layers whose weights are rounded and how many weights each has."""
    rounded = Targets.of(network, scheme.keep).weights
    users: dict[str, list[str]] = {name: [] for name in rounded}
    for node in network.nodes:
        if isinstance(node.op, (Dense, Conv)) and node.op.weight in users:
            users[node.op.weight].append(node.name)
    return [(tuple(layers), network.parameters[name].value.size) for name, layers in users.items()]
