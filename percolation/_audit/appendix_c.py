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
        verdict="holds with a correction",
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
        evidence=(_NUMBER, _LATTICE + "test_some_cell_is_cut_off_as_surely_as_the_bound_says"),
    ),
    Entry(
        key="threshold in the plane",
        section="App. C, Fig. 8",
        equations=(),
        statement="The critical probability of sites in two dimensions is around 0.59",
        verdict="holds",
        correction="",
        argument="0.59274605079210(2) (Jacobsen 2015); squares begin to be crossed there.",
        evidence=(_NUMBER, "tests/test_percolation_threshold.py::test_thresholds_are_the_exact_and_the_published_ones"),
    ),
    Entry(
        key="threshold against dimension",
        section="App. C",
        equations=(),
        statement="p_c is inversely proportional to the dimension",
        verdict="holds with a correction",
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
        verdict="holds with a correction",
        correction=(
            "Of independent labels, if and only if δ > p_c(d): each of the 2K − 1 intervals of probability δ = "
            "1/K from d = floor(K/2) + 2 on. At δ = 0.001 that is d = 502: CIFAR (3,072) and ImageNet (150,528) "
            "pass it, unless labels starve or outputs are vectors. Labels of smooth functions percolate at "
            "lower densities."
        ),
        argument=(
            "p_c(d) < 1/K with p_c = 1/(2d−1) + (3/2)/(2d−1)² + ...; checked for every K from 14 to 2000 by the series."
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
        verdict="holds with a correction",
        correction="It is its share of the sites: the size itself grows as N^d above the threshold.",
        argument="Above p_c the largest component of N^d sites has p θ(p) N^d of them, to leading order.",
        evidence=(_NUMBER,),
    ),
    Entry(
        key="correlation helps",
        section="App. C",
        equations=(),
        statement="Higher correlations imply a higher probability of connecting paths",
        verdict="fails",
        correction=(
            "Positive association makes each given path likelier and several disjoint paths, each as likely as "
            "before, less likely to have an open one among them. Which wins depends on the graph."
        ),
        argument=(
            "A path is open when all its cells are: increasing events, so P ≥ product. Disjoint paths closed are "
            "decreasing events, so P(all closed) ≥ product of P(closed). Two routes of one cell each, p = 1/2: "
            "equal cells give 1/2, independent ones 3/4. In high dimension isolation is just that: all 2d "
            "neighbours empty at once."
        ),
        evidence=(
            _NUMBER,
            _HERE + "test_association_opens_a_path_and_closes_the_choice_between_paths",
        ),
    ),
    Entry(
        key="cubes of a ball",
        section="D.1.2, D.1.5",
        equations=(11, 21),
        statement=(
            "The cubes of the ball X′ of radius R are a lattice in which each has the same number of neighbours"
        ),
        verdict="holds with a correction",
        correction=(
            "With cubes of side ε/√d a share 2Φ(−ε/(2R)) of the 2d neighbours lies in the ball, for any large d: "
            "the mean is harmless. But a cube at the sphere has at most about d, and order ε/(R d p) of the cubes "
            "count as such: 1 − P is at least c/d (1−p)^d, so δ̄ at most ln(1/(1−δ)), half of Z^d's. In a box of n "
            "cubes a side, isolated cubes fall at the rate −ln((1−p)(1−p+2p/n)), and all but (1−2/n)^d of the cubes "
            "touch the boundary."
        ),
        argument=(
            "The share is the volume common to two balls a side s = ε/√d apart, I_(1−s²/4R²)((d+1)/2, 1/2), "
            "exactly. At depth E R/d below the sphere (E exponential) with x_i = R g/√d, the step outwards along an "
            "axis stays inside if E > (ε/R)|g| + ε²/2R²: at E = 0 only steps inwards do. Box: a cube's axes are "
            "independent, each with two neighbours or, with probability 2/n, one; P(isolated) is a product over "
            "axes. Connections in a subset of Z^d are connections in Z^d, so P there is an upper bound."
        ),
        evidence=(
            _NUMBER,
            _LATTICE + "test_the_share_of_neighbours_in_a_ball_tends_to_the_gaussian_one",
            _LATTICE + "test_cubes_at_the_sphere_have_half_of_the_neighbours",
            _LATTICE + "test_isolation_in_a_box_is_a_product_over_axes",
        ),
    ),
)
