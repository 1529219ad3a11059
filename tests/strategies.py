"""Every hypothesis strategy for the objects of the toolkit; small by default, limits are keywords."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp


@dataclass(frozen=True)
class LabelledLattice:
    """A small lattice of labels (negative: empty) with its boundaries and the reach of a bond."""

    labels: np.ndarray
    periodic: tuple[bool, ...]
    reach: int


@st.composite
def labelled_lattices(draw: st.DrawFn, *, max_axes: int = 4, max_sites: int = 200) -> LabelledLattice:
    """Lattices of one to four axes, of up to three labels."""
    shape = draw(
        st.lists(st.integers(1, 7), min_size=1, max_size=max_axes).filter(lambda s: int(np.prod(s)) <= max_sites)
    )
    labels = draw(hnp.arrays(np.int16, tuple(shape), elements=st.integers(-1, 3)))
    periodic = tuple(draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape))))
    return LabelledLattice(labels=labels, periodic=periodic, reach=draw(st.integers(0, 1)))


def deltas() -> st.SearchStrategy[float]:
    """Interval lengths 1/n."""
    return st.integers(1, 200).map(lambda n: 1 / n)


def probabilities() -> st.SearchStrategy[float]:
    """Probabilities in [0, 1], the ends included."""
    return st.floats(0, 1, allow_subnormal=False)
