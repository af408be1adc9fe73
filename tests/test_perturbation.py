"""Parameter boxes: every rounded end on the right side of the exact one."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paramrob.errors import InputError
from paramrob.models.network import Dense, Elementwise, Input, Network, Node, Parameter
from paramrob.perturbation import ParameterInterval, Perturbation

MAGNITUDE = st.builds(
    lambda m, e: float(Fraction(m) * Fraction(10) ** e),
    st.floats(1, 10),
    st.integers(-320, 299),
)
CENTRE = st.one_of(st.just(0.0), MAGNITUDE, MAGNITUDE.map(lambda v: -v))
RADIUS = st.one_of(st.just(Fraction(0)), MAGNITUDE.map(lambda v: Fraction(repr(v))))
RELATIVE = st.one_of(
    st.just(Fraction(0)),
    st.builds(
        lambda n, e: Fraction(n) * Fraction(10) ** e, st.integers(1, 999), st.integers(-25, 1)
    ),
)


@settings(derandomize=True, database=None, deadline=None)
@given(centre=CENTRE, absolute=RADIUS, relative=RELATIVE)
@example(1.0, Fraction(1, 10), Fraction(0))
@example(1e300, Fraction(1, 100), Fraction(0))
@example(5e-324, Fraction(0), Fraction(1, 3))
@example(1.7e308, Fraction(0), Fraction(3))
@example(-1.7e308, Fraction(10) ** 308, Fraction(0))
@np.errstate(over="ignore")
def test_rounded_ends_lie_on_the_right_side(
    centre: float, absolute: Fraction, relative: Fraction
) -> None:
    interval = ParameterInterval(np.array([centre]), absolute, relative)
    exact = absolute + relative * abs(Fraction(centre))
    assert interval.exact(0) == (Fraction(centre) - exact, Fraction(centre) + exact)
    (radius,) = interval.radius()
    assert radius == math.inf or Fraction(float(radius)) >= exact
    (lower,), (upper,) = interval.inner()
    assert Fraction(centre) - exact <= Fraction(float(lower)) <= Fraction(centre)
    assert Fraction(centre) <= Fraction(float(upper)) <= Fraction(centre) + exact


@settings(derandomize=True, database=None, deadline=None)
@given(centre=CENTRE, absolute=RADIUS, relative=RELATIVE)
@np.errstate(over="ignore")
def test_rounding_gives_away_little(centre: float, absolute: Fraction, relative: Fraction) -> None:
    interval = ParameterInterval(np.array([centre]), absolute, relative)
    exact = absolute + relative * abs(Fraction(centre))
    slack = 8 * Fraction(math.ulp(min(abs(centre) + float(exact), 1e308)))
    (radius,) = interval.radius()
    if radius < math.inf:
        assert Fraction(float(radius)) <= exact + slack
    (lower,), (upper,) = interval.inner()
    if abs(centre) + float(exact) < 1e308:
        assert Fraction(float(lower)) <= Fraction(centre) - exact + slack
        assert Fraction(float(upper)) >= Fraction(centre) + exact - slack


@settings(derandomize=True, database=None, deadline=None)
@given(centre=CENTRE, radius=st.one_of(MAGNITUDE, st.integers(0, 64).map(lambda n: n / 8)))
@example(1.0, 2.0**-53)
@example(2.0, 0.25)
@np.errstate(over="ignore")
def test_an_absolute_box_gives_away_nothing(centre: float, radius: float) -> None:
    """The next float64 is outside: an end that is one itself is kept."""
    (lower,), (upper,) = ParameterInterval(np.array([centre]), Fraction(radius)).inner()
    for end, outward in ((lower, -math.inf), (upper, math.inf)):
        beyond = float(np.nextafter(end, outward))
        assert abs(Fraction(float(end)) - Fraction(centre)) <= Fraction(radius)
        if math.isfinite(beyond):
            assert abs(Fraction(beyond) - Fraction(centre)) > Fraction(radius)


def test_no_perturbation_is_a_point() -> None:
    interval = ParameterInterval(np.array([[1.0, -0.0], [1e300, 5e-324]]))
    assert not interval.radius().any()
    lower, upper = interval.inner()
    np.testing.assert_array_equal(lower, interval.centre)
    np.testing.assert_array_equal(upper, interval.centre)


@pytest.mark.parametrize("relative", [Fraction(0), Fraction(1, 10)])
def test_a_single_number_keeps_its_shape(relative: Fraction) -> None:
    interval = ParameterInterval(np.array(2.0), Fraction(1, 10), relative)
    assert isinstance(interval.radius(), np.ndarray)
    assert interval.radius().shape == ()
    assert [end.shape for end in interval.inner()] == [(), ()]
    assert interval.exact(0)[1] == 2 + Fraction(1, 10) + 2 * relative


def two_layers() -> Network:
    nodes = [
        Node("x", Input(), (), (2,)),
        Node("scale", Elementwise("div", "s"), ("x",), (2,)),
        Node("a", Dense("w", "b"), ("scale",), (2,)),
        Node("c", Dense("w"), ("a",), (2,)),
    ]
    values = {"s": [2.0, 4.0], "w": [[1.0, 2.0], [3.0, 4.0]], "b": [0.5, -0.5]}
    return Network(nodes, [Parameter(k, np.array(v)) for k, v in values.items()])


def test_uniform_covers_every_parameter() -> None:
    network = two_layers()
    box = Perturbation.uniform(network, Fraction(1, 100))
    assert set(box.parameters) == {"s", "w", "b"}
    assert box.as_json() == {"kind": "uniform", "delta": "0.01"}
    for parameter in network.parameters.values():
        low, high = box.interval(parameter).exact(0)
        assert high - low == Fraction(1, 50)


def test_left_out_layers_are_points() -> None:
    network = two_layers()
    box = Perturbation.uniform(network, Fraction(1, 100), ["scale"])
    assert not box.interval(network.parameters["s"]).radius().any()
    assert box.interval(network.parameters["w"]).radius().all()
    assert box.as_json()["leave_out"] == ["scale"]
    wider = box.scaled(Fraction(1, 10))
    assert not wider.interval(network.parameters["s"]).radius().any()
    assert wider.interval(network.parameters["b"]).absolute == Fraction(1, 10)


def test_a_layer_that_shares_parameters_is_not_left_out_alone() -> None:
    # The shared weight would silently stay fixed in the other layer too.
    with pytest.raises(InputError, match=r"shares \['w'\]"):
        Perturbation.uniform(two_layers(), Fraction(1), ["a"])
    both = Perturbation.uniform(two_layers(), Fraction(1), ["a", "c"])
    assert set(both.parameters) == {"s"}


def test_unknown_layers_and_negative_widths_are_refused() -> None:
    with pytest.raises(InputError, match=r"no layer 'fc'.*\['a', 'c', 'scale'\]"):
        Perturbation.uniform(two_layers(), Fraction(1), ["fc"])
    with pytest.raises(InputError, match="negative"):
        Perturbation.uniform(two_layers(), Fraction(-1))
    with pytest.raises(InputError, match="negative"):
        Perturbation({}, {"w": Fraction(-1)})
    with pytest.raises(InputError, match="beyond float64"):
        Perturbation({"w": Fraction(10) ** 400})


def test_scaling_keeps_parameters_with_a_relative_width_alone() -> None:
    box = Perturbation({"w": Fraction(1)}, {"b": Fraction(1, 2)}).scaled(Fraction(1, 10))
    assert box.parameters == ("w", "b")
    assert box.interval(two_layers().parameters["b"]).exact(0) == (
        Fraction(4, 10),
        Fraction(6, 10),
    )
