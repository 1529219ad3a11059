"""The audit of Appendix C, "Percolation theory", and of the ball of Eq. 11 as a lattice of cubes."""

from __future__ import annotations

from percolation._audit.entry import Entry

_HERE = "tests/test_percolation_audit.py::"
_LATTICE = "tests/test_audit_lattice.py::"
_NUMBER = _HERE + "test_the_number_beside_each_entry_tells_its_verdict"

ENTRIES = (
    Entry(
        key="sharp transition",
        section="App. C",
        equations=(),
        statement=(
            "On an N × N grid, any two nonempty cells: connected never for small p, almost surely for large; sharp "
            "at p_c"
        ),
        needs="a reading",
        correction=(
            "Sharp is the onset of an infinite cluster. Two far occupied cells are connected with probability "
            "θ(p)², θ the chance to be in it: 0 below p_c, rising continuously in two dimensions, 1 only at p = 1. "
            "That all occupied cells be connected has probability tending to 0 for every p < 1."
        ),
        argument=(
            "Uniqueness of the infinite cluster and mixing give θ². An occupied cell is isolated with probability "
            "p(1−p)^4 > 0, independently for the middles of the 3 × 3 blocks, so P(none is) ≤ (1 − p(1−p)^4)^[N/3]², "
            "which tends to 0; and with an isolated cell all are connected only if it is alone."
        ),
        evidence=(
            _NUMBER,
            _LATTICE + "test_some_cell_is_cut_off_as_surely_as_the_bound_says",
            _LATTICE + "test_two_occupied_cells_are_connected_with_the_square_of_the_infinite_cluster",
        ),
    ),
    Entry(
        key="threshold in the plane",
        section="App. C, Fig. 8",
        equations=(),
        statement="The critical probability of sites in two dimensions is around 0.59",
        needs="nothing",
        correction="",
        argument="0.59274605079210(2) (Jacobsen 2015); squares begin to be crossed there.",
        evidence=(_NUMBER, "tests/test_percolation_threshold.py::test_thresholds_are_the_exact_and_the_published_ones"),
    ),
    Entry(
        key="threshold against dimension",
        section="App. C",
        equations=(),
        statement="p_c is inversely proportional to the dimension",
        needs="a constant",
        correction=(
            "p_c = 1/(2d−1) (1 + (3/2)/(2d−1) + (15/4)/(2d−1)² + ...), tending to 1/(2d), half of what d neighbours "
            "give; 2d p_c falls from 2.37 (d = 2) to 1.11 (d = 13)."
        ),
        argument=(
            "p_c ≥ 1/(2d−1): a path enters a cube by one face and leaves by 2d−1, so the expected number of "
            "self-avoiding occupied paths of n steps is at most 2d (2d−1)^(n−1) p^n. The expansion 1/(2d) + "
            "(5/2)/(2d)² + (31/4)/(2d)³ is proved (Heydenreich, Matzke 2021), and equals the series to that order."
        ),
        evidence=(
            _NUMBER,
            _LATTICE + "test_thresholds_lie_above_the_tree_and_tend_to_half_of_one_over_d",
            _LATTICE + "test_the_series_is_the_proven_expansion_to_third_order",
        ),
    ),
    Entry(
        key="percolation phase",
        section="App. C",
        equations=(),
        statement="As the dimension is very large, p_c is very small; hence the labels percolate at initialisation",
        needs="a constant",
        correction=(
            "Of independent labels, if and only if δ > p_c(d): each of the 2K − 1 intervals of probability δ = 1/K "
            "from d = floor(K/2) + 2 on. At δ = 0.001 that is d = 502: CIFAR (3,072) and ImageNet (150,528) pass it, "
            "unless labels starve or outputs are vectors. Level sets of the Gaussian free field percolate at lower "
            "densities (measured)."
        ),
        argument=(
            "p_c(d) < 1/K with p_c = 1/(2d−1) + (3/2)/(2d−1)² + ...; checked for every K from 2 to 2000, by the "
            "published thresholds up to d = 13 and by the series beyond."
        ),
        evidence=(
            _NUMBER,
            _HERE + "test_the_first_dimension_of_a_label_is_half_the_number_of_labels_and_two",
        ),
    ),
    Entry(
        key="dictionary",
        section="App. C, Table 2",
        equations=(),
        statement="Order parameter = size of the largest component",
        needs="a reading",
        correction="It is its share of the sites: the size itself grows as N^d above the threshold.",
        argument="Above p_c the largest component of N^d sites has p θ(p) N^d of them, to leading order.",
        evidence=(_NUMBER,),
    ),
    Entry(
        key="correlation helps",
        section="App. C",
        equations=(),
        statement="Higher correlations imply a higher probability of connecting paths",
        needs="an assumption",
        correction=(
            "Positive association makes each given path at least as likely, and several disjoint paths, each as "
            "likely as before, at most as likely to have an open one among them. Which wins depends on the graph."
        ),
        argument=(
            "A path is open when all its cells are: increasing events, so P ≥ product. Disjoint paths closed are "
            "decreasing events, so P(all closed) ≥ product of P(closed). Two routes of one cell each, p = 1/2: equal "
            "cells give 1/2, independent ones 3/4. Isolation of an occupied cube is another matter: with positive "
            "correlations its neighbours are likelier to be occupied. A level common to all (Gaussian, correlation "
            "1/2, p = 0.1) makes isolation rarer with 16 neighbours, 0.098 against 0.185, and commoner from 32 on, "
            "0.046 against 0.034."
        ),
        evidence=(
            _NUMBER,
            _HERE + "test_association_opens_a_path_and_closes_the_choice_between_paths",
            _HERE + "test_a_common_level_isolates_more_rarely_among_few_neighbours_than_among_many",
        ),
    ),
    Entry(
        key="cubes of a ball",
        section="D.1.2, D.1.5",
        equations=(11, 21),
        statement=(
            "The cubes of the ball X′ of radius R are a lattice in which each has the same number of neighbours"
        ),
        needs="an assumption",
        correction=(
            "With cubes of side ε/√d a share 2Φ(−ε/(2R)) of the 2d neighbours lies in the ball, for any large d: the "
            "mean is harmless. But a cube at the sphere has half of that, 2Φ(−ε/(2R)) d, and a share of order 1/d of "
            "the cubes counts as such: 1 − P is at least c/d (1−p)^(2Φ(−ε/(2R)) d), so δ̄ is at most 2Φ(−ε/(2R)) "
            "ln(1/(1−δ)), less than half of Z^d's. In a box of n cubes a side, isolated cubes fall at the rate "
            "−ln((1−p)(1−p+2p/n)), and all but (1−2/n)^d of the cubes touch the boundary."
        ),
        argument=(
            "The share is the volume common to two balls a side s = ε/√d apart, I_(1−s²/4R²)((d+1)/2, 1/2), exactly. "
            "At depth E R/d below the sphere (E exponential) with x_i = R g/√d, the step outwards along an axis "
            "stays inside if E > (ε/R)|g| + ε²/2R²: at E = 0 only steps inwards do, and of those the ones with |g| > "
            "ε/(2R). At E < 1/d the neighbours are 2Φ(−ε/(2R)) d + O(1) on average, so that P(isolated) ≥ E[(1−p)^n] "
            "≥ c/d (1−p)^(2Φ d) (Jensen). Directions with more small g are rare, and isolated more often still: the "
            "true rate is a little lower. Box: a cube's axes are independent, each with two neighbours or, with "
            "probability 2/n, one; P(isolated) is a product over axes. Connections in a subset of Z^d are "
            "connections in Z^d, so P there is an upper bound."
        ),
        evidence=(
            _NUMBER,
            _LATTICE + "test_the_share_of_neighbours_in_a_ball_tends_to_the_gaussian_one",
            _LATTICE + "test_cubes_at_the_sphere_have_half_of_the_neighbours",
            _LATTICE + "test_isolation_in_a_box_is_a_product_over_axes",
            _LATTICE + "test_isolation_in_a_ball_falls_at_the_rate_of_the_sphere",
        ),
    ),
)
