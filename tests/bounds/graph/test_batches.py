"""Batches shrink where memory runs out, and labels are told only where bounds tell them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paramrob.bounds.graph.batches import in_batches, out_of_memory
from paramrob.bounds.graph.forward import Interval
from paramrob.bounds.graph.labels import reference_labels, told
from paramrob.domain import Ball, Point
from paramrob.models.model import OutputInfo
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork
from paramrob.several import reference_label
from tests.bounds.graph.nets import NETWORKS, dense_network

CPU = "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory"


@dataclass
class Machine:
    """Takes so many items at a time, and fewer each time it shrinks."""

    room: int
    batch: int = 64
    shrinks: int = 0
    need: int = 1
    seen: list[int] = field(default_factory=list)

    def shrink(self) -> bool:
        if self.shrinks == 0:
            return False
        self.shrinks -= 1
        self.need = 0
        return True

    def run(self, part: Sequence[int]) -> list[int]:
        self.seen.append(len(part))
        if self.need * len(part) > self.room:
            raise RuntimeError(CPU)
        return [i * i for i in part]


def found(count: int, machine: Machine, first: int | None = None) -> list[int]:
    batches = in_batches(list(range(count)), machine, machine.run, lambda: -1, first)
    return [result for batch in batches for result in batch]


@settings(derandomize=True, database=None, deadline=None)
@given(st.integers(0, 200), st.integers(1, 100), st.integers(1, 80), st.none() | st.integers(1, 99))
def test_results_come_in_order_whatever_the_room(
    count: int, room: int, batch: int, first: int | None
) -> None:
    machine = Machine(room, batch)
    assert found(count, machine, first) == [i * i for i in range(count)]
    assert max(machine.seen, default=0) <= batch


def test_a_batch_that_fails_is_halved_and_others_stay_small() -> None:
    machine = Machine(room=10, batch=64)
    found(64, machine)
    assert machine.seen == [64, 32, 16, 8, 8, 8, 8, 8, 8, 8, 8]


def test_first_batches_grow() -> None:
    machine = Machine(room=1000, batch=20)
    found(60, machine, first=4)
    assert machine.seen == [4, 8, 16, 20, 12]


def test_one_item_gets_by_with_less_or_is_given_up() -> None:
    machine = Machine(room=0, shrinks=1)
    assert found(2, machine) == [0, 1]
    assert found(2, Machine(room=0)) == [-1, -1]


def test_what_counts_as_out_of_memory() -> None:
    with pytest.raises(MemoryError) as numpys:
        np.empty(1 << 50)
    assert out_of_memory(numpys.value)
    with pytest.raises(RuntimeError) as torchs:
        torch.empty(1 << 50)
    assert out_of_memory(torchs.value)
    assert out_of_memory(RuntimeError(CPU))
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not out_of_memory(ValueError("out of memory"))


def test_another_error_is_not_swallowed() -> None:
    def broken(part: Sequence[int]) -> list[int]:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        next(in_batches([1, 2], Machine(1), broken, lambda: 0))


def problems(name: str, count: int) -> list[Problem]:
    network = NETWORKS[name]
    rng = np.random.default_rng(3)
    box = UncertainNetwork(network, Perturbation.uniform(network, Fraction("0.01")))
    output = OutputInfo("logits", None) if network.output_size > 1 else OutputInfo("logit")
    points = rng.uniform(-1, 1, (count, network.input_size))
    return [Problem(network, box, Point(tuple(x.tolist())), output) for x in points]


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_labels_are_those_of_exact_execution(name: str) -> None:
    given_ = problems(name, 5)
    labels = reference_labels(given_, "cpu", 1 << 30)
    assert labels == [reference_label(p) for p in given_]


def test_labels_of_a_ball_are_those_of_its_centre() -> None:
    network = dense_network((3, 6, 4), 0)
    box = UncertainNetwork(network, Perturbation.uniform(network, Fraction(1)))
    centres = np.random.default_rng(0).uniform(-1, 1, (20, 3))
    balls = [
        Problem(network, box, Ball(tuple(x.tolist()), Fraction(5)), OutputInfo("logits", None))
        for x in centres
    ]
    expected = network.evaluate(centres).argmax(1).tolist()
    assert reference_labels(balls, "cpu", 1 << 24) == expected
    assert len(set(expected)) > 1


def interval(low: list[list[float]], high: list[list[float]]) -> Interval:
    ends = [torch.tensor(end, dtype=torch.float64) for end in (low, high)]
    return Interval(ends[0], ends[1])


def test_ties_and_overlaps_are_not_told() -> None:
    low = [[0.0, 1.0], [1.0, 1.0], [0.0, 0.5], [float("nan"), 1.0], [2.0, float("-inf")]]
    high = [[0.5, 2.0], [1.0, 1.0], [0.6, 0.7], [float("nan"), 2.0], [3.0, float("inf")]]
    assert told(interval(low, high), "softmax", OutputInfo("logits", None)) == [1, *[None] * 4]


def test_a_result_at_the_level_is_class_0() -> None:
    ends = interval([[0.0], [-1.0], [1e-300], [-1e-300]], [[0.0], [0.0], [1.0], [1e-300]])
    assert told(ends, "sigmoid", OutputInfo("logit")) == [0, 0, 1, None]
    assert told(ends, "identity", OutputInfo("value", Fraction(0))) == [0, 0, 1, None]
    assert told(ends, "identity", OutputInfo("value", Fraction(1))) == [0, 0, 0, 0]
