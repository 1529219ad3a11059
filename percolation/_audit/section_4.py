"""The audit of Section 4, "Theoretical work": Conjecture 4.1, Eqs. 3-4, steps (i) and (ii), and of G.1."""

from __future__ import annotations

from percolation._audit.entry import Entry

_HERE = "tests/test_percolation_audit.py::"
_LATTICE = "tests/test_audit_lattice.py::"
_NETWORKS = "tests/test_audit_networks.py::"
_LABELS = "tests/test_percolation_labels.py::"
_CUBES = "tests/test_lipschitz_cubes.py::"

ENTRIES = (
    Entry(
        key="connection probability",
        section="Section 4, Conjecture 4.1",
        equations=(3,),
        statement="P(connected | similar outputs) = 1 − O(e^(−dδ̄)) with δ̄ = O(δ)",
        needs="a constant",
        correction=(
            "On Z^d with independent labels, for connection in one given label, p = δ fixed: 1 − P = 2 (1−δ)^(2d) (1 "
            "+ o(1)), that is δ̄ = 2 ln(1/(1−δ)) = 2δ + δ² + ...; the prefactor is 4/(3−δ) for cubes that share a "
            "label, in any of theirs. Around any y, as Section 4 defines it: (1−2δ)^(2d+1)/(2d+1) ≤ 1 − P ≤ 2 "
            "(1−2δ)^(2d) (1 + o(1)), that is δ̄ = 2 ln(1/(1−2δ)) exactly. So δ̄ is of order δ, which an O does not "
            "say. On the cubes of a ball it is less than half of that."
        ),
        argument=(
            "Both inputs must be in the infinite cluster, which is unique; for far inputs the two events become "
            "independent (mixing), so 1 − P = 1 − (1−Q)², about 2Q. Claim: Q = (1−p)^(2d) (1 + o(1)) as d grows at "
            "fixed p. Below: the isolated site. Above: choose k with p > p_c(Z^k) and let t > 0 be the chance that "
            "an occupied site is in the infinite cluster of Z^k, r = 1 − t. If n neighbours of the origin are "
            "occupied, take m ≤ n of them, y = ±e_i, and cut the axes that none of them uses into blocks B of k. The "
            "planes y + span(B) meet only in y for one y, not at all for two, and hold no other neighbour of the "
            "origin; so the events that y is in the infinite cluster of its plane are independent given the "
            "neighbours, and the origin's cluster is finite with probability at most r^(m [(d−m)/k]). With M > 2k "
            "ln(1−p)/ln r fixed and m = min(n, M), Q ≤ (1−p)^(2d) (1 + sum over 1 ≤ n < M of (2dp/(1−p))^n r^(n "
            "[(d−M)/k])) + r^(M [(d−M)/k]), and all but the 1 vanish beside (1−p)^(2d). A pair that shares two "
            "labels fails in both at the rate of 3δ/2; of cells that share any, 2/(3−δ) share one. Around y: for "
            "|f(x0) − f(x1)| ≤ δ′ there is a window [y−δ, y+δ] in [0, 1] that holds both, chosen by the two values "
            "alone, with p = 2δ: above. Below: let u be the lesser of the two values. A neighbour of x0 on a path "
            "has a value of at most u + 2δ, whatever y is: of 2d independent ones none has with probability (1 − 2δ "
            "− u)^(2d), for u ≤ 1 − 2δ, and there u has a density of 2/(2 − δ′) ≥ 1, whose integral is the bound. "
            "Values near 1, and x1, do as much: 8/(2−δ′) times the bound as d grows."
        ),
        evidence=(
            _HERE + "test_the_number_beside_each_entry_tells_its_verdict",
            _LATTICE + "test_a_window_chosen_by_the_two_values_holds_both",
            _LATTICE + "test_cells_that_share_a_label_share_one_as_often_as_the_prefactor_says",
            _LATTICE + "test_q_is_the_isolated_site_between_two_proven_bounds",
            "tests/test_percolation_scaling.py::test_disconnection_falls_with_dimension_and_ends_as_two_isolated_sites",
            _LATTICE + "test_values_near_an_end_are_left_around_any_y_as_often_as_the_bound_says",
            _LATTICE + "test_the_rate_around_any_y_is_that_of_one_window",
        ),
    ),
    Entry(
        key="growth with dimension",
        section="Section 4 (ii)",
        equations=(),
        statement="The probability that two points are connected grows with the dimension",
        needs="nothing",
        correction="",
        argument=(
            "Z^d is a plane of Z^(d+1), with the same independent labels on it: what is connected there stays "
            "connected. So the chance to be in the infinite cluster never falls with d; it is 0 below p_c(d) and "
            "positive above."
        ),
        evidence=(_LATTICE + "test_a_further_dimension_never_disconnects",),
    ),
    Entry(
        key="cover",
        section="Section 4 (i), D.1.4",
        equations=(4,),
        statement="Intervals of length δ, one every δ/2, cover [0, 1]; there are O(2N) of them, N = 1/δ",
        needs="nothing",
        correction="",
        argument=(
            "The starts kδ/2, k = 0 ... 2/δ − 2, end in [1−δ, 1]: 2N − 1 intervals (2/δ whole is enough). A set of "
            "values of width at most δ/2 with lowest value a lies in the interval of the last start at or below a; "
            "δ/2 is best possible for δ < 1, as values just below one start and just above the end of the interval "
            "before share none."
        ),
        evidence=(
            _LABELS + "test_intervals_cover_the_unit_interval_with_steps_of_half_their_length",
            _LABELS + "test_a_range_shorter_than_half_an_interval_is_always_carried",
            _CUBES + "test_half_delta_is_the_best_constant",
        ),
    ),
    Entry(
        key="one interval a cube",
        section="Section 4 (i), D.1.4",
        equations=(4, 14),
        statement="With ε of Eq. 14, the outputs on each cube lie in one interval of Eq. 4, whatever δ′ < δ",
        needs="a constant",
        correction=(
            "Certain, of a function of which no more than M is known, if and only if the range on a cube is at most "
            "δ/2: ε ≤ δ/(2M), that is δ′ ≥ δ/2 in Eq. 14."
        ),
        argument=(
            "Eq. 14 allows a range of w = δ − δ′. A range of w > δ/2 whose lowest value is less than w − δ/2 below "
            "the next start reaches beyond the interval it begins in: the share of ranges inside one is (2/δ − 1)(δ "
            "− w)/(1 − w)."
        ),
        evidence=(
            _HERE + "test_a_wide_cube_carries_a_label_as_often_as_the_formula_says",
            _CUBES + "test_every_cube_is_labelled_from_half_delta_on",
        ),
    ),
    Entry(
        key="shared interval",
        section="Section 4 (i), D.1.4",
        equations=(4, 14),
        statement="If |f(x0) − f(x1)| ≤ δ′ < δ, the cubes of x0 and x1 share an interval, whatever δ′ < δ",
        needs="a constant",
        correction=(
            "With intervals of length δ one every s, and [1 − δ, 1]: two values within δ′ always share one if and "
            "only if δ′ ≤ δ − s, their cubes (range w each) if δ′ + 2w ≤ δ − s. With s = δ/2: δ′ ≤ δ/2 − 2w. For any "
            "δ′ < δ take s = (δ−δ′)/2 and w = (δ−δ′)/4, that is ε = (δ−δ′)/(4M)."
        ),
        argument=(
            "Let a ≤ b, b − a ≤ δ − s, and ks the last start at or below a. If it is the last of all, its interval "
            "reaches to 1; if not, a < (k+1)s, so b < ks + δ, its end. Beyond δ − s: a just below (k+1)s and b just "
            "above ks + δ. Cubes widen [a, b] by w on either side. The paper has s = δ/2 and w = δ − δ′, so δ′ + 2w "
            "= 2δ − δ′ > δ for every δ′ < δ: no δ′ makes the sentence certain. The percolation of one interval does "
            "not depend on s."
        ),
        evidence=(
            _HERE + "test_values_share_an_interval_always_exactly_up_to_length_less_step",
            _CUBES + "test_the_paper_s_choice_does_not_make_its_sentence_certain",
        ),
    ),
    Entry(
        key="path of cubes",
        section="Section 4 (ii), D.1.5",
        equations=(),
        statement="A path of cubes with a common interval gives a δ-connected path",
        needs="nothing",
        correction="",
        argument=(
            "Cubes are convex and neighbours share a face: the polygon through centres and face centres stays "
            "inside, where f stays in an interval of length δ. So |f − y| ≤ δ for every y in it, and ≤ δ/2 for its "
            "middle. It is sufficient, not necessary: cubes that share only a corner could be passed too, and a "
            "path may change intervals within [y − δ, y + δ]."
        ),
        evidence=(
            _HERE + "test_the_number_beside_each_entry_tells_its_verdict",
            _NETWORKS + "test_a_network_stays_in_the_interval_along_a_path_of_its_cubes",
        ),
    ),
    Entry(
        key="connected cubes",
        section="Section 4 (ii)",
        equations=(),
        statement="Cubes are connected if they share the same interval",
        needs="a reading",
        correction=(
            "If all cubes of the path share one and the same interval, as D.1.5 says. Sharing is not transitive: on a "
            "path where each cube shares some interval with the next f may drift from 0 to 1, and between small cubes "
            "such a path always exists."
        ),
        argument=(
            "Values 0, δ/2, δ, ..., 1 in a row: each two neighbours share an interval, the ends none. With cubes of "
            "range δ/4 or less all neighbours share one (see independent labels), so any two cubes of a connected "
            "lattice would be connected, whatever f does."
        ),
        evidence=(
            _HERE + "test_the_number_beside_each_entry_tells_its_verdict",
            _HERE + "test_a_row_of_overlapping_intervals_leads_from_0_to_1",
        ),
    ),
    Entry(
        key="label probability",
        section="Section 4 (ii), D.1.5",
        equations=(),
        statement="Each interval is drawn with similar probability p ≈ δ",
        needs="a constant",
        correction=(
            "For uniform outputs a value lies in a given interval with probability δ exactly, the ends of [0, 1] "
            "included. For a cube of range w only δ − 2w ≤ p ≤ δ follows; if its lowest value is uniform in "
            "[0, 1 − w], p = (δ − w)/(1 − w). With w = δ/2 about half of δ is lost then, and of the rate."
        ),
        argument=(
            "Each interval has length δ. A cube [v, v + w] lies in [a, a + δ] when v does in [a, a + δ − w], and it "
            "does if any one of its values is in [a + w, a + δ − w]. "
            "Interior values carry two intervals; the indicators of one interval alone are Bernoulli(p), which is "
            "ordinary site percolation."
        ),
        evidence=(
            _LABELS + "test_interior_label_has_probability_delta",
            _HERE + "test_a_cube_is_certain_of_a_label_with_probability_delta_less_its_range",
            _HERE + "test_half_of_the_probability_is_more_than_half_of_the_rate",
        ),
    ),
    Entry(
        key="independent labels",
        section="Section 4 (ii), D.1.5, G.1",
        equations=(),
        statement="Intervals of cubes may be taken as drawn independently of each other",
        needs="no help",
        correction=(
            "Eq. 14 itself forbids it: with ranges w ≤ δ/4 any two cubes that share a face share an interval with "
            "probability 1. So do any two cubes with inputs within (δ/2 − 2w)/M of each other; independence can hold "
            "only between coarser blocks."
        ),
        argument=(
            "Two cubes with a common point have outputs within a joint range of 2w = 2(δ − δ′). If that is at most "
            "δ/2, one interval holds both (see cover), for every network and both cubes; with inputs r apart the "
            "joint range is Mr + 2w. For independent uniform cells the chance would be 3δ/2 − δ²/2."
        ),
        evidence=(
            _HERE + "test_cubes_that_share_a_face_share_a_label",
            _HERE + "test_independent_cells_share_a_label_as_rarely_as_the_formula_says",
            _NETWORKS + "test_neighbouring_cubes_of_a_network_always_share_a_label",
            _HERE + "test_cubes_of_near_inputs_share_a_label_up_to_what_their_own_ranges_take",
        ),
    ),
    Entry(
        key="vector outputs",
        section="Section 4",
        equations=(),
        statement="The step from outputs in [0, 1] to outputs in the unit ball of R^(d_y) is straightforward",
        needs="a constant",
        correction=(
            "A label is then a set of diameter δ. Of outputs uniform in the unit ball it has p ≤ (δ/2)^(d_y), with "
            "equality for a ball of that diameter, and what is within δ of any y has at most δ^(d_y): δ̄ falls from "
            "order δ to order δ^(d_y), and labels percolate only for input dimensions above ((2/δ)^(d_y) + 1)/2."
        ),
        argument=(
            "Of all sets of one diameter the ball has the largest volume (isodiametric inequality), (δ/2)^(d_y) of "
            "the unit ball's; in one dimension that is δ of the 2 of [−1, 1]. p > p_c ≥ 1/(2d − 1) asks for d > (1/p "
            "+ 1)/2. A cube of side δ is no label: its diameter is δ√d_y. Ten outputs at δ = 0.001 would need more "
            "than 5e32 inputs."
        ),
        evidence=(
            _HERE + "test_the_first_dimension_of_a_label_is_half_the_number_of_labels_and_two",
            _HERE + "test_a_ball_of_outputs_is_the_likeliest_set_of_its_diameter",
        ),
    ),
    Entry(
        key="sign of correlations",
        section="Section 4, G.1",
        equations=(),
        statement=(
            "Correlations between outputs at initialisation are positive (G.1); of nearby inputs they tend to be "
            "(Section 4)"
        ),
        needs="a reading",
        correction=(
            "Of inputs close to each other, against their length, they are, tending to 1. Of others they are never "
            "negative for ReLU, from two layers on; an odd φ without biases (tanh, erf, sine) gives the sign of x·x′ "
            "and −1 at x′ = −x, so that half of the pairs of a ball have a negative one. Biases add a positive level "
            "common to all."
        ),
        argument=(
            "Wide limit, equal norms: with r the correlation of the inputs, each layer makes r ↦ sum of c_k² r^k "
            "over Hermite coefficients of φ (Mehler), 1 at r = 1, at least 0 for r ≥ 0; odd φ has odd k alone, hence "
            "the sign of r. ReLU: (√(1−r²) + r(π − arccos r))/π ≥ 0, and 0 at r = −1. f^L(−x) = −f^L(x) exactly, at "
            "any width, if φ is odd and there are no biases. So near inputs on two sides of the origin have −1 too."
        ),
        evidence=(
            _HERE + "test_the_number_beside_each_entry_tells_its_verdict",
            _NETWORKS + "test_odd_networks_anticorrelate_opposite_inputs_and_relu_networks_none",
        ),
    ),
    Entry(
        key="positive correlation",
        section="Section 4, G.1",
        equations=(),
        statement="Independence only underestimates connectivity, since correlations are positive",
        needs="an assumption",
        correction=(
            "Of jointly Gaussian outputs before the last map (wide networks) where no correlation is negative, which "
            "an odd φ without biases violates: true for two cubes (any "
            "interval), and along one given path of cubes for an interval at an end of [0, 1]; for one symmetric "
            "about the median whatever the signs are. False in general: for one path and other intervals, for "
            "several paths at once, and where a random level is common to all cubes: there 1 − P falls at the rate "
            "of its least positive density, more slowly than for independent cubes if that is below δ."
        ),
        argument=(
            "f^L Gaussian. Two cubes with r ≥ 0: Cov = sum r^n c_n²/n! ≥ 0 (Mehler); intervals symmetric about the "
            "median have even n alone, for every r. One path: end intervals are monotone events, associated (Pitt "
            "1982); symmetric ones by Royen's inequality. Counterexample: f = Φ(θ·x), x0 = e1, x2 = e2, x1 = (x0 + "
            "x2)/√2, correlations 0 and 1/√2: if both ends have f in [0.85, 0.9], θ·x1 ≥ √2 · 1.036 and f(x1) > "
            "0.92, so P(x1 agrees | ends do) = 0, not 0.05. Oscillation: where correlations are negative (sine "
            "networks and other odd ones), end intervals of two cubes repel; and a single sine in one dimension "
            "never connects two inputs a period apart in a label narrower than its range. Common level: given U let "
            "the cubes be independent with density p(U) of mean δ: positively associated, and 1 − P = E[p² (1 − "
            "(1−Q(p))²)]/E[p²], which falls as (1 − min p)^(2d) over the p > 0 (slower than any exponential if they "
            "come down to 0), slower than (1−δ)^(2d) if min p < δ. With p of 0 or 2δ it falls faster: two inputs "
            "that carry the label are in the networks that have it."
        ),
        evidence=(
            _HERE + "test_two_gaussian_cubes_share_any_label_at_least_as_often_as_independent_ones",
            _HERE + "test_a_path_at_an_end_or_in_the_middle_is_favoured_by_positive_correlation",
            _HERE + "test_a_path_off_the_middle_can_be_blocked_by_positive_correlation",
            _HERE + "test_negative_correlation_separates_end_labels",
            _HERE + "test_a_common_level_connects_less_than_independence",
            _NETWORKS + "test_a_linear_network_blocks_its_middle_cube",
            _NETWORKS + "test_a_sine_network_never_connects_inputs_a_period_apart",
            _HERE + "test_a_level_that_some_networks_lack_connects_more_than_independence",
        ),
    ),
)
