"""The bound of every target on many boxes at once, with cuts: no sample exceeds its box's bound."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from paramrob.bounds.ascent import activate
from paramrob.bounds.assess import Assessor
from paramrob.bounds.branch import Goal, no_cuts
from paramrob.bounds.chain import Chain, build_chain
from paramrob.bounds.goals import change_targets, flip_targets
from paramrob.bounds.linear import BoundPass, Boxes
from paramrob.bounds.rounding import magnitudes
from paramrob.bounds.targets import Target
from paramrob.bounds.taylor import Taylor, largest_step
from paramrob.models.model import OutputKind
from paramrob.problem import Problem
from tests.known_problems import problem, random_network, unit_box

COUNT = 6
SAMPLES = 60
STEPS = 1
CLOSE = 1e-11
"""What the float64 evaluation of a sample may be off by."""


def samples(
    rng: np.random.Generator, chain: Chain, boxes: Boxes
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return results of both networks and hidden values, ``(boxes, samples, ...)`` each."""
    shape = (COUNT, SAMPLES, boxes.lower.shape[1])
    share = torch.from_numpy(
        np.where(rng.uniform(size=shape) < 0.4, rng.integers(0, 2, shape), 0.5)
    )
    h = t = boxes.lower.unsqueeze(1) + share * (boxes.upper - boxes.lower).unsqueeze(1)
    zs, ps = [], []
    for k, layer in enumerate(chain.layers):
        theta = rng.uniform(-1, 1, size=(COUNT, SAMPLES, layer.weight.shape[0]))
        theta = np.where(rng.uniform(size=theta.shape) < 0.7, np.sign(theta), theta)
        h = h @ layer.weight.T + layer.bias
        moved = t @ (layer.weight + layer.weight_offset).T + layer.bias + layer.bias_offset
        t = moved + torch.from_numpy(theta) * (t.abs() @ layer.weight_radius.T + layer.bias_radius)
        if k < len(chain.activations):
            zs.append(h)
            ps.append(t)
            h, t = activate(chain.activations[k], h), activate(chain.activations[k], t)
    return h, t, torch.cat(zs, 2), torch.cat(ps, 2)


def random_boxes(rng: np.random.Generator, subject: Problem, cuts: Tensor | None) -> Boxes:
    low, high = (torch.from_numpy(a) for a in subject.domain.outer())
    ends = torch.from_numpy(np.sort(rng.uniform(size=(2, COUNT, low.numel())), axis=0))
    ends[1, : COUNT // 2] = ends[0, : COUNT // 2] + 0.05 * (ends[1] - ends[0])[: COUNT // 2]
    return Boxes(low + ends[0] * (high - low), low + ends[1] * (high - low), cuts)


def cuts_through(rng: np.random.Generator, zs: Tensor, ps: Tensor) -> Tensor:
    """Return cuts that about half of the samples satisfy."""
    hidden = zs.shape[2]
    cuts = no_cuts(COUNT, hidden)
    for i in range(COUNT):
        for _ in range(2):
            kind, j = int(rng.integers(4)), int(rng.integers(hidden))
            values = zs[i, :, j] if kind < 2 else ps[i, :, j]
            cuts[i, kind, j] = values.median()
    return cuts


def kept(cuts: Tensor, zs: Tensor, ps: Tensor) -> Tensor:
    low_z, high_z, low_p, high_p = (c.unsqueeze(1) for c in cuts.unbind(1))
    inside = (zs >= low_z) & (zs <= high_z) & (ps >= low_p) & (ps <= high_p)
    return inside.all(dim=2)


def targets_of(subject: Problem, chain: Chain) -> list[Target]:
    found = list(change_targets(chain))
    if subject.output.kind != "value" or subject.reference.output_size == 1:
        found += [t for side in flip_targets(subject, chain).values() for t in side]
    return found


def check(seed: int, kind: str, output: OutputKind, outputs: int, cut: bool) -> None:
    rng = np.random.default_rng(seed)
    scale = float(rng.choice([0.5, 1.0, 4.0, 15.0]))
    network = random_network(rng, [2, *rng.integers(1, 5, size=2), outputs], kind, scale)
    level = Fraction(str(rng.choice(["0.5", "0.2", "0.9"]))) if outputs == 1 else None
    delta = str(rng.choice(["0.001", "0.03", "0.3"]))
    subject = problem(network, unit_box(2), delta, output, level)
    chain = build_chain(subject)
    low, high = (torch.from_numpy(a) for a in subject.domain.outer())
    engine = BoundPass(chain, magnitudes(chain, low, high))
    assessor = Assessor(engine, low, high, STEPS, 64, 0)
    boxes = random_boxes(rng, subject, None)
    z, p, zs, ps = samples(rng, chain, boxes)
    counts = torch.ones(COUNT, SAMPLES, dtype=torch.bool)
    if cut:
        boxes = Boxes(boxes.lower, boxes.upper, cuts_through(rng, zs, ps))
        assert boxes.cuts is not None
        counts = kept(boxes.cuts, zs, ps)
    never_done = Goal(threshold=-1e300)
    parent = torch.full((COUNT,), torch.inf, dtype=torch.float64)
    for target in targets_of(subject, chain):
        bound = assessor.assess(target, boxes, parent, never_done, -torch.inf).bound
        for i in range(COUNT):
            value = target.attained(z[i], p[i])[counts[i]]
            value = value[value > -torch.inf]
            assert bool((value <= bound[i] + CLOSE * (1 + value.abs())).all()), (seed, kind, output)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("kind", ["relu", "leaky_relu", "sigmoid", "tanh"])
def test_no_sample_exceeds_the_bound_of_its_box(kind: str, cut: bool) -> None:
    for seed in range(2):
        check(seed, kind, "logit", 1, cut)
        check(seed, kind, "value", 1, cut)
    check(0, kind, "logits", 2, cut)
    check(1, kind, "logits", 3, cut)


def test_the_largest_step_is_the_largest() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        low, high = np.sort(rng.normal(size=2) * rng.choice([0.1, 3.0, 100.0]))
        gain = abs(rng.normal()) * rng.choice([1e-9, 0.1, 3.0, 100.0])
        u = torch.linspace(low, high, 201, dtype=torch.float64)
        bound = largest_step(*(torch.tensor([v], dtype=torch.float64) for v in (low, high, gain)))
        assert float((torch.sigmoid(u + gain) - torch.sigmoid(u)).max()) <= float(bound) + 1e-15


def test_taylor_bounds_the_change_whatever_the_row() -> None:
    rng = np.random.default_rng(1)
    for _ in range(400):
        scale = rng.choice([1e-6, 0.1, 1.0, 30.0, 1e3])
        z0, z1 = np.sort(rng.normal(size=2) * scale + rng.normal() * rng.choice([0.0, 5.0, 50.0]))
        floor, top = np.sort(rng.normal(size=2) * rng.choice([1e-9, 0.01, 1.0, 20.0]))
        ends = [torch.tensor([v], dtype=torch.float64) for v in (z0, z1, floor, top)]
        tangent = Taylor.between(*ends)
        z = torch.from_numpy(rng.uniform(z0, z1, size=100)).clamp(z0, z1)
        e = torch.from_numpy(rng.uniform(floor, top, size=100)).clamp(floor, top)
        z[:2], e[:2] = torch.tensor([z0, z1]), torch.tensor([top, top])
        e[2:20] -= abs(rng.normal())  # below the floor
        row_top = (tangent.gradient * z + tangent.on_p * e).max()
        slack = 1e-13 * (1 + (tangent.gradient * z).abs().max() + (tangent.on_p * e).abs().max())
        bound = float(tangent.finish((row_top + slack).unsqueeze(0)))
        assert float((torch.sigmoid(z + e) - torch.sigmoid(z)).max()) <= bound + 1e-15
