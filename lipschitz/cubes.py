"""From a Lipschitz bound to the side of the cubes (Eqs. 13-14), and what the intervals of Eq. 4 demand of it.

For a network with values in [0, 1] and ||f(x) - f(y)|| <= M ||x - y||_p, two points at a distance of at most
epsilon = (delta - delta') / M differ in value by at most delta - delta' (Eq. 14). Two points of a cube of side s are at
most s d^(1/p) apart, corner to corner: s sqrt(d) for p = 2, s for p = inf, s d for p = 1. A cube of side
epsilon / d^(1/p) therefore has values within a range of width

    w = delta - delta' .

Side and diameter are those of the whole cube, not of its half: nothing is said about a cube's centre.

What the labels need. The intervals of Eq. 4 have length delta and begin at multiples of delta / 2, up to 1 - delta,
with 1 / delta a whole number and at least 2. A cube carries an interval if all its values lie in it.

*Any set of values of width at most delta / 2 lies in one of the intervals, and delta / 2 is the best constant.*
Let a be the lowest value and k delta / 2 the last start at or below it. If k is the last interval, it reaches to 1. If
not, a < (k + 1) delta / 2, so the highest value is below (k + 2) delta / 2, the interval's end. Values
(k + 1) delta / 2 - t and (k + 2) delta / 2 + t share no interval, however small t > 0, at a distance just above
delta / 2.

*Every cube carries an interval for certain if and only if w <= delta / 2, that is, delta' >= delta / 2.*
This is the statement above for one cube's range.

*Two inputs with |f(x_0) - f(x_1)| <= r share an interval for certain, cubes and all, if r + 2 w <= delta / 2.*
The cubes' values lie within w of f(x_0) and of f(x_1), so together within a range of r + 2 w. In the terms of Eq. 14,
delta' = 3 delta / 4 + r / 2 (:func:`delta_prime_that_shares`).

The paper takes r = delta' with w = delta - delta' (below Eq. 14). Then r + 2 w = 2 delta - delta' > delta for every
delta' < delta: no choice of delta' makes that sentence certain with the intervals as they stand. The proof is mended by
smaller cubes, as here; no other step of it depends on the constant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from lipschitz import norms


@dataclass(frozen=True, slots=True, kw_only=True)
class Cubes:
    """Cubes small enough for a Lipschitz bound.

    Parameters
    ----------
    side : float
        Side of the cubes, in the unit of the inputs: epsilon / dimension^(1 / norm).
    epsilon : float
        Diameter of the cubes in the norm (Eq. 14), in the unit of the inputs.
    norm : float
        1, 2 or inf.
    dimension : int
        Of the input space.
    upper_range : float
        Width of the range of values in one cube, at most: delta - delta'.
    is_labelled : bool
        Whether every cube carries an interval of Eq. 4 for certain.
    lower_shared_difference : float
        Two inputs whose values differ by at most this lie in cubes that share an interval for certain; 0 if not even
        equal values ensure it.
    """

    side: float
    epsilon: float
    norm: float
    dimension: int
    upper_range: float
    is_labelled: bool
    lower_shared_difference: float


def cut_cubes(upper: float, *, dimension: int, delta: float, delta_prime: float, norm: float = 2) -> Cubes:
    """Return the cubes of Eqs. 13-14 for a network with Lipschitz bound ``upper``.

    Parameters
    ----------
    upper : float
        M of Eq. 13, for ``norm`` on inputs and scalar outputs; positive and finite.
    dimension : int
        Of the input space, d; at least 1.
    delta : float
        Length of the intervals of Eq. 4, in (0, 1/2], 1 / delta a whole number.
    delta_prime : float
        Of Eq. 14, in (0, delta).
    norm : {1, 2, inf}
        The norm in which M bounds.

    Returns
    -------
    Cubes
        Side and epsilon are rounded down, so that a cube is never too large.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> cut_cubes(2.0, dimension=4, delta=0.5, delta_prime=0.25).side < 0.125 / 2
    True
    """
    norms.check_norm(norm)
    upper, delta, delta_prime = float(upper), float(delta), float(delta_prime)  # float32 would draw all into float32
    if not (upper > 0.0 and math.isfinite(upper)):
        raise ValueError(f"upper must be positive and finite, got {upper}")
    if dimension < 1:
        raise ValueError(f"dimension must be at least 1, got {dimension}")
    check_deltas(delta, delta_prime)
    epsilon = _down(_down(delta - delta_prime) / upper)  # Eq. 14
    upper_range = math.nextafter(delta - delta_prime, math.inf)
    corners = {
        1: math.nextafter(float(dimension), math.inf) if dimension > 2**53 else float(dimension),
        2: math.nextafter(math.sqrt(dimension), math.inf),
        math.inf: 1.0,
    }[norm]
    side = _down(epsilon / corners)
    if not side > 0.0:
        raise ValueError(f"upper must leave the cubes a side that float64 holds, got {upper}")
    return Cubes(
        side=side,
        epsilon=epsilon,
        norm=norm,
        dimension=dimension,
        upper_range=upper_range,
        is_labelled=delta_prime >= delta / 2.0,
        lower_shared_difference=max(
            0.0, _rounded(Fraction(delta) / 2 - 2 * (Fraction(delta) - Fraction(delta_prime)), -1)
        ),
    )


def delta_prime_that_shares(delta: float, difference: float) -> float:
    """Return the delta' of Eq. 14 with which inputs that differ by ``difference`` in value share an interval.

    That is 3 delta / 4 + difference / 2; see the module's docstring for the proof.

    Parameters
    ----------
    delta : float
        Length of the intervals, in (0, 1/2], 1 / delta a whole number.
    difference : float
        In [0, delta / 2).

    Returns
    -------
    float
        In [3 delta / 4, delta], rounded up.

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    delta, difference = float(delta), float(difference)
    check_delta(delta)
    if not 0.0 <= difference < delta / 2.0:
        raise ValueError(f"difference must lie in [0, delta / 2) = [0, {delta / 2.0:g}), got {difference}")
    return _rounded(Fraction(3, 4) * Fraction(delta) + Fraction(difference) / 2, 1)


def check_delta(delta: float) -> None:
    """Raise ValueError unless ``delta`` lies in (0, 1/2] and 1 / delta is a whole number, to rounding."""
    if not 0.0 < delta <= 0.5:
        raise ValueError(f"delta must lie in (0, 1/2], got {delta}")
    if abs(1.0 / delta - round(1.0 / delta)) > 1e-9 / delta:
        raise ValueError(f"delta must be 1 over a whole number, got {delta}")


def check_deltas(delta: float, delta_prime: float) -> None:
    """Raise ValueError unless ``delta`` is valid and ``delta_prime`` lies in (0, delta)."""
    check_delta(delta)
    if not 0.0 < delta_prime < delta:
        raise ValueError(f"delta_prime must lie in (0, delta) = (0, {delta:g}), got {delta_prime}")


def _rounded(exact: Fraction, direction: int) -> float:
    """Return the float64 nearest to a number that is not below it, for direction 1, or not above it, for -1."""
    value = float(exact)
    return value if (Fraction(value) - exact) * direction >= 0 else math.nextafter(value, direction * math.inf)


def _down(value: float) -> float:
    return math.nextafter(value, -math.inf)
