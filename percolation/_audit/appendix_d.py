"""The audit of Appendix D: networks, initialisation, loss, Lemma D.1, and the mean field of Eqs. 21-24."""

from __future__ import annotations

from percolation._audit.entry import Entry

_HERE = "tests/test_percolation_audit.py::"
_LATTICE = "tests/test_audit_lattice.py::"
_NETWORKS = "tests/test_audit_networks.py::"
_FIELD = "tests/test_percolation_meanfield.py::"
_FULLY = "tests/test_lipschitz_fully_connected.py::"
_NUMBER = _HERE + "test_the_number_beside_each_entry_tells_its_verdict"

_NETWORK = (
    Entry(
        key="networks",
        section="D.1.1",
        equations=(8, 9, 10),
        statement="Eqs. 8–10 generalise to every tensor program: linear maps and Lipschitz pointwise functions",
        needs="a reading",
        correction=(
            "True of convolutions, residual sums and normalisation with fixed statistics, whose constants multiply "
            "and add; of LSTM and GRU over finitely many steps, whose products are of bounded factors; of "
            "normalisation by the inputs' own statistics, 1/√η for a variance of at least η. Dot-product attention, "
            "and gates on unbounded factors, are Lipschitz on the ball X′ of D.1.2 but not on X, with a constant "
            "that grows with R. The final activation must be Lipschitz too."
        ),
        argument=(
            "Self-attention of two scalar tokens (x, y), all matrices 1, has slope 1/2 + y²/4 in x at x = 0: "
            "unbounded on R²; x σ(y) has slope x/4 in y. LSTM: |c_t| ≤ |c_0| + t, so Δc_t ≤ Δc_(t−1) + (|c_(t−1)| + "
            "5)/4 · Δz, z the sum that the gates see. x̂ = (x − mean)/s, s² = var + η: the Jacobian (1 − 11ᵀ/n − "
            "x̂x̂ᵀ/n)/s has norm at most 1/s ≤ 1/√η. On a ball every locally Lipschitz map is Lipschitz "
            "(compactness), which is all that D.1.4 uses. A step function as φ of Eq. 10 has no M at all."
        ),
        evidence=(
            _HERE + "test_attention_has_no_lipschitz_constant_and_one_on_every_ball",
            _NETWORKS + "test_recurrent_gates_and_batch_statistics_have_a_lipschitz_constant_on_all_inputs",
            _FULLY + "test_network_is_equations_8_to_10",
        ),
    ),
    Entry(
        key="any radius",
        section="D.1.2",
        equations=(11,),
        statement="Labels are well spread on balls of any finite radius R as d grows, for well-normalised networks",
        needs="a constant",
        correction=(
            "The first layer's weights need a variance of order 1/R² (and biases none, or a spread that does not "
            "dwarf it)."
        ),
        argument=(
            "A random input of the ball has length R (1 − O(1/d)); with variance s² a component of f¹ is Gaussian "
            "with spread sR. With the usual 1/d it is R/√d → 0: all inputs get the output of the origin, and every "
            "label but two or three starves. (At R = √d, images of unit pixels, 1/d is right.)"
        ),
        evidence=(_NUMBER, _NETWORKS + "test_on_a_small_ball_all_labels_but_three_starve"),
    ),
    Entry(
        key="labels at initialisation",
        section="D.1.2",
        equations=(),
        statement=("Every label has probability at least δ̃ = O(δ), but for intervals of total mass below 1 − p"),
        needs="a constant",
        correction=(
            "δ̃ ≥ c(p) δ (an O is no lower bound) with c the least density of f on its central part of mass p, in "
            "the wide limit. Gaussian distribution function and unit variance, or (1 + erf)/2 and variance 1/2: "
            "every label has δ exactly. Sigmoid: an end label has Φ(−ln(1/δ − 1)/σ), smaller than any power of δ. As "
            "d grows at fixed δ, 1 − P = 2 sum p_k² (1−p_k)^(2d) / sum p_k² (1 + o(1)) in one of the labels: it "
            "falls at the rate of the rarest, 2 ln(1/(1 − min p_k))."
        ),
        argument=(
            "f^L at one input is Gaussian, N(0, σ²), as width grows, so P(a ≤ f ≤ b) = Φ(φ⁻¹(b)/σ) − Φ(φ⁻¹(a)/σ), at "
            "least the length times the least density. c(p) > 0 for p < 1, c → 0 as p → 1 for the sigmoid. At σ = 1, "
            "δ = 0.1 the end labels of the sigmoid have 0.0140 instead of 0.1; those of (1 + erf)/2 have 0.182, its "
            "middle one 0.071. Two far inputs carry label k with p_k² and are then disconnected with 2 (1−p_k)^(2d)."
        ),
        evidence=(
            _NUMBER,
            _HERE + "test_central_labels_have_at_least_the_least_density_times_delta",
            _HERE + "test_end_labels_of_a_sigmoid_starve_faster_than_any_power",
            _FULLY + "test_outputs_are_nearly_uniform_over_networks",
            _HERE + "test_erf_gives_every_label_delta_at_variance_one_half_and_not_at_one",
            _HERE + "test_uneven_labels_end_at_the_rate_of_the_rarest",
        ),
    ),
    Entry(
        key="labels in one network",
        section="D.1.2",
        equations=(),
        statement="It suffices that each label is probable at each x (over networks)",
        needs="an assumption",
        correction=(
            "What percolates is the density of a label in one network. Outputs at far inputs x, x′ must decorrelate "
            "as well: their correlation is a level common to the whole of X′, which starves the labels away from "
            "it."
        ),
        argument=(
            "Wide ReLU networks: a correlation r of two inputs becomes (√(1−r²) + r (π − arccos r))/π in each layer, "
            "whose fixed point is 1. Orthogonal inputs: 0.32, 0.49, 0.60, 0.68, 0.74 after one to five layers: at "
            "depth 6 only a quarter of the outputs' variance is found within one network. tanh networks without "
            "biases keep 0 at 0. A label whose density over networks goes down to 0 lets 1 − P fall more slowly than "
            "any exponential (see positive correlation)."
        ),
        evidence=(
            _NUMBER,
            _NETWORKS + "test_a_deep_relu_network_has_one_level_and_a_tanh_network_has_not",
            _HERE + "test_a_level_without_a_least_density_falls_more_slowly_than_any_exponential",
        ),
    ),
    Entry(
        key="loss",
        section="D.1.3",
        equations=(12,),
        statement="Any loss that is Lipschitz in both arguments with L(y, y) = 0 serves as well",
        needs="an assumption",
        correction=(
            "If besides {z : L(z, y) ≤ c} is connected for all y and c, for outputs in [0, 1] an interval, it does: "
            "the values within (δ − δ′)/λ of those between f(x0) and f(x1) are allowed, λ the constant of L."
        ),
        argument=(
            "L(y, y′) = distance of y − y′ from the multiples of 1/2: Lipschitz with 1 in both arguments, L(y, y) = "
            "0, and L(0.2, 0.7) = 0 ≤ δ′. But f is continuous, so every path from 0.2 to 0.7 takes all values "
            "between, and around any y one of them has loss 1/4. With connected sublevel sets all z between f(x0) "
            "and f(x1) have L(z, f(x1)) ≤ δ′."
        ),
        evidence=(
            _HERE + "test_a_lipschitz_loss_can_part_equal_predictions",
            _HERE + "test_a_loss_with_intervals_serves",
        ),
    ),
    Entry(
        key="cross-entropy",
        section="B.5, D.1.3, E.1",
        equations=(12,),
        statement=(
            "Cross-entropy, the loss of the experiments (Figs. 6, 9, 10), is one of those that Conjecture 4.1 is about"
        ),
        needs="an assumption",
        correction=(
            "L(y, y) is the entropy of y, 0 for one-hot y alone, and −ln f_c has slope 1/f_c, unbounded on the "
            "simplex. Around one class c it serves: L ≤ δ is the interval f_c ≥ e^(−δ), where the slope is at most "
            "e^δ. So the figures test that label [e^(−δ), 1] alone, between inputs that an optimiser finds, at one "
            "input dimension: not Conjecture 4.1 as stated, with its random inputs, all its labels and its rate in "
            "d."
        ),
        argument=(
            "L(z, y) = −sum y_i ln z_i is least at z = y (Gibbs), where it is the entropy, ln 2 at (1/2, 1/2): for δ "
            "below it nothing at all is δ-connected around y. The condition of Eq. 3, L(f(x0), f(x1)) ≤ δ′, asks of "
            "f(x1) an entropy of at most δ′, equal predictions or not. −ln z has derivative −1/z."
        ),
        evidence=(_NUMBER, _NETWORKS + "test_cross_entropy_is_a_loss_of_the_conjecture_around_one_class_alone"),
    ),
    Entry(
        key="Lipschitz lemma",
        section="Lemma D.1",
        equations=(13,),
        statement="With probability p, arbitrarily near 1, there is M with ‖f(x + Δx) − f(x)‖ ≤ M‖Δx‖",
        needs="nothing",
        correction="",
        argument=(
            "Every network of Eqs. 8–10 with finite weights and a Lipschitz final activation has M = m_φ m^(L−1) "
            "∏‖θ^(l,l−1)‖, surely; M is random, and its p-quantile serves for all networks but a share 1 − p."
        ),
        evidence=(_NUMBER, _NETWORKS + "test_no_secant_is_steeper_than_the_product_of_the_lemma"),
    ),
    Entry(
        key="size of the cubes",
        section="D.1.4",
        equations=(14,),
        statement="‖Δx‖ < ε implies |f(x + Δx) − f(x)| ≤ δ − δ′; cubes of side ε/√d are small enough",
        needs="nothing",
        correction="",
        argument=(
            "ε = (δ − δ′)/M; the diagonal of a cube of side s is s√d. (In the ∞-norm the side is ε, M another one.)"
        ),
        evidence=(
            _NUMBER,
            "tests/test_lipschitz_cubes.py::test_epsilon_and_side_are_equations_13_and_14_and_never_too_large",
        ),
    ),
    Entry(
        key="activation",
        section="Proof of Lemma D.1",
        equations=(15, 16, 17),
        statement="|φ(r + Δr) − φ(r)| ≤ m|Δr| for numbers gives ‖φ(x + Δx) − φ(x)‖ ≤ m‖Δx‖ for vectors",
        needs="nothing",
        correction="",
        argument=(
            "Coordinate by coordinate: in the 2-norm as printed, and in every p-norm. m = 1 for tanh, ReLU, sine, "
            "2/√π for erf."
        ),
        evidence=(
            _NUMBER,
            _HERE + "test_a_pointwise_function_keeps_its_constant_in_every_norm",
            _FULLY + "test_slope_constants_are_the_steepest_derivatives_rounded_up",
        ),
    ),
    Entry(
        key="first layer",
        section="Proof of Lemma D.1",
        equations=(18, 19),
        statement="f¹(x + Δx) − f¹(x) = θ(φ(x + Δx) − φ(x)), so ‖f¹(x + Δx) − f¹(x)‖ ≤ ‖θ‖ m‖Δx‖",
        needs="a formula",
        correction="By Eq. 8 f¹(x + Δx) − f¹(x) = θ Δx, at most ‖θ‖‖Δx‖: L layers have L − 1 activations, not L.",
        argument=(
            "Eq. 8 has no activation before its matrix. For m ≥ 1 the printed bound is merely loose. For m < 1 it "
            "is false: φ(x) = tanh(x/2), m = 1/2, θ = 1: ‖f¹(x + Δx) − f¹(x)‖ = ‖Δx‖ > ‖Δx‖/2. The lemma survives."
        ),
        evidence=(_NUMBER, _NETWORKS + "test_the_first_layer_meets_no_activation"),
    ),
    Entry(
        key="probability of the bound",
        section="Proof of Lemma D.1",
        equations=(20,),
        statement="For every p < 1 there is m′ with ‖f¹(x + Δx) − f¹(x)‖ ≤ m′‖Δx‖ with probability p",
        needs="nothing",
        correction="",
        argument=(
            "A norm of Gaussian matrices has a finite quantile. Explicitly, entries of spread s, a × b: m′ = s (√a "
            "+ √b + √(2 ln(1/(1−p)))) (Davidson, Szarek 2001); for one row exactly s times the p-quantile of chi_b. "
            "At large sizes it costs next to nothing: the norm is concentrated within s of s(√a + √b)."
        ),
        evidence=(
            _HERE + "test_gaussian_norms_exceed_the_bound_more_rarely_than_asked",
            _HERE + "test_one_row_has_the_norm_of_chi",
        ),
    ),
    Entry(
        key="induction",
        section="Proof of Lemma D.1",
        equations=(13, 20),
        statement="By induction the same holds for every layer",
        needs="a constant",
        correction=(
            "Layer by layer f^l adds a factor m‖θ^(l,l−1)‖, in this order. Bounds that each hold with probability p "
            "hold together with p^L only: ask 1 − (1−p)/L of each. M = m_φ m^(L−1) ∏ s_l (√n_l + √n_(l−1) + √(2 "
            "ln(L/(1−p))))."
        ),
        argument=(
            "Step: ‖f^l(x + Δx) − f^l(x)‖ ≤ ‖θ‖ ‖φ(f^(l−1)(x + Δx)) − φ(f^(l−1)(x))‖ ≤ ‖θ‖ m ‖f^(l−1)(x + Δx) − "
            "f^(l−1)(x)‖. Layers are independent, so exact quantiles give p^L: 0.35 for ten of 0.9. The union bound "
            "needs no independence."
        ),
        evidence=(_NUMBER, _NETWORKS + "test_whole_networks_keep_the_bound_of_the_union"),
    ),
    Entry(
        key="far from optimal",
        section="Remark D.1",
        equations=(),
        statement="The bound by norms is sufficient, though far from the optimal one",
        needs="nothing",
        correction="",
        argument=(
            "k blocks of relu(x) + relu(−x) = |x| have the product 2^k and the exact slope 1. Random networks: "
            "LipSDP, itself an upper bound, is smaller by a factor that grows with depth."
        ),
        evidence=(_NUMBER, _NETWORKS + "test_the_product_is_far_from_optimal_and_worse_with_depth"),
    ),
    Entry(
        key="arbitrarily small cubes",
        section="Remark D.1",
        equations=(14,),
        statement="A poor bound is no problem, since ε can be taken arbitrarily small",
        needs="a reading",
        correction=(
            "True of the cover. But M grows as (2g)^(L−2) (1 + √(N/d)) with depth L, width N and gain g, where "
            "the slope at a random input grows by g E[φ′²]^(1/2) a layer (1 for ReLU, 1.09 for tanh), so the "
            "side (δ−δ′)/(M√d) shrinks by 2g a layer (3.2 for tanh), and ever more neighbouring cubes carry one "
            "label: independence becomes worse as ε falls."
        ),
        argument=(
            "‖θ‖ → s(√a + √b) (Bai, Yin): 1 + √(N/d) for the first layer, 2g for a hidden, g for the last one. In d "
            "the side falls as 1/√d alone, M tending to a constant. See independent labels for the rest."
        ),
        evidence=(
            _NUMBER,
            "tests/test_lipschitz_random_matrices.py::test_products_of_random_networks_are_as_expected",
            _HERE + "test_a_tanh_layer_steepens_typical_slopes_by_a_tenth_and_the_bound_threefold",
        ),
    ),
)
_MEAN_FIELD = (
    Entry(
        key="number of neighbours",
        section="D.1.5",
        equations=(21,),
        statement="1 − P = (1 − pP)^d: a cube has d neighbours",
        needs="a constant",
        correction=(
            "2d neighbours, of which 2d − 1 are new after the first step: Q′ = (1 − p(1−Q′))^(2d−1), Q = (1 − "
            "p(1−Q′))^(2d) (Bethe lattice). d is right for the corners {0, 1}^d of one cube and for a cube at the "
            "sphere of a ball much wider than it."
        ),
        argument=(
            "A cube shares a face with x ± e_i, i = 1 ... d. The cube that a walk came from is known to be occupied."
        ),
        evidence=(
            _NUMBER,
            _FIELD + "test_the_corners_of_a_cube_and_the_sites_of_a_lattice",
            _LATTICE + "test_the_two_equations_of_the_tree_are_those_of_its_branching",
        ),
    ),
    Entry(
        key="lower bound",
        section="D.1.5",
        equations=(21, 22),
        statement="Solving Eq. 22 gives a lower bound for P",
        needs="a reading",
        correction=(
            "It is one for Eq. 21 alone (the tree), and in the plane none for the lattice. From d = 3 on it is "
            "one (measured; proved at fixed p for large d), but only because q = dp has half of the neighbours: "
            "with q = 2dp it is none in any dimension. The tree itself bounds from above: P ≤ P of the Bethe "
            "lattice with 2d neighbours, Q ≥ Q_Bethe ≥ (1−p)^(2d)."
        ),
        argument=(
            "1 − x ≤ e^(−x) puts the root of Eq. 21 above that of Eq. 22. But loops test a site twice, which only "
            "hurts: a cluster grown on Z^d with a shared neighbour tested once is part of one on the Bethe lattice. "
            "In the plane at p = 0.55 < p_c Eq. 22 with q = dp = 1.1 has P = 0.18, while P = 0; with q = 2dp the "
            "same happens between 1/(2d) and p_c in every dimension. From d = 3 on p_c < 1/d, where the root of q = dp "
            "begins; at fixed p Q is (1−p)^(2d) (1 + o(1)), below e^(−dp), which is below the root."
        ),
        evidence=(
            _NUMBER,
            _FIELD + "test_equation_21_bound_is_a_bound",
            _LATTICE + "test_equation_22_promises_an_infinite_cluster_below_every_threshold",
            _LATTICE + "test_half_of_the_neighbours_make_equation_22_a_lower_bound_from_three_dimensions_on",
            "tests/test_percolation_finite_clusters.py::test_the_bethe_lattice_never_has_more_finite_clusters",
        ),
    ),
    Entry(
        key="closed loops",
        section="D.1.5",
        equations=(21,),
        statement="In the high-dimensional limit closed loops can be neglected",
        needs="nothing",
        correction="",
        argument=(
            "At fixed p, Q and Q_Bethe are both (1−p)^(2d) (1 + o(1)) (see connection probability). The Poisson "
            "form of Eq. 22 is not: e^(−2dp) exceeds (1−p)^(2d) by a factor e^(2d (ln(1/(1−p)) − p)), so its rate "
            "is 2δ instead of 2 ln(1/(1−δ))."
        ),
        evidence=(_NUMBER, _LATTICE + "test_loops_matter_less_in_every_higher_dimension"),
    ),
    Entry(
        key="root",
        section="D.1.5",
        equations=(22,),
        statement="P solves P = 1 − e^(−qP), q the mean number of occupied neighbours",
        needs="nothing",
        correction="",
        argument=(
            "Q = e^(−q) e^(qQ), so (−qQ) e^(−qQ) = −q e^(−q) and Q = −W(−q e^(−q))/q with the principal branch W0: "
            "the other branch returns −q, the root Q = 1. Up to q = 1 W0 does so too. Q is the extinction of a "
            "Poisson branching process."
        ),
        evidence=(
            _NUMBER,
            _FIELD + "test_poisson_root_is_lamberts_w",
            _FIELD + "test_poisson_root_is_exact_everywhere",
        ),
    ),
    Entry(
        key="expansion",
        section="D.1.5",
        equations=(23,),
        statement="Q = e^(−q)(1 − qQ + ...), hence (1 + q e^q) Q = e^(−q) + O(q²Q²)",
        needs="a formula",
        correction="Q = e^(−q)(1 + qQ + O(q²Q²)), hence (1 − q e^(−q)) Q = e^(−q) (1 + O(q²Q²)).",
        argument=(
            "Two slips: e^(qQ) = 1 + qQ + ..., not 1 − qQ; and qQ e^(−q) moved to the left makes q e^(−q), not q "
            "e^q. At the root (1 + q e^q) Q → q, which is not e^(−q)."
        ),
        evidence=(
            _NUMBER,
            _LATTICE + "test_the_corrected_expansion_has_the_error_it_states_and_the_printed_one_has_not",
        ),
    ),
    Entry(
        key="leading term",
        section="D.1.5",
        equations=(24,),
        statement="Q = e^(−q)/(1 + q e^q) + O(q²Q²)",
        needs="a formula",
        correction=(
            "Q = e^(−q)/(1 − q e^(−q)) + O(q² e^(−3q)) = sum over n ≥ 1 of (nq)^(n−1)/n! e^(−nq) = e^(−q)(1 + q "
            "e^(−q) + ...)."
        ),
        argument=(
            "The printed term is e^(−2q)/q to leading order, Q is e^(−q): the difference is of order e^(−q), not q² "
            "e^(−2q). The series is Lagrange's, −W0(−x) = sum n^(n−1)/n! x^n at x = q e^(−q), for q > 1."
        ),
        evidence=(
            _NUMBER,
            _FIELD + "test_the_printed_expansion_is_not_the_root",
            _LATTICE + "test_the_series_of_lagrange_sums_to_the_root",
        ),
    ),
    Entry(
        key="order of Q",
        section="D.1.5",
        equations=(24,),
        statement="Q = O(e^(−q)) = O(e^(−pd))",
        needs="nothing",
        correction="",
        argument=(
            "e^(−q) ≤ Q ≤ e · e^(−q) for every q: Q = e^(−q) e^(qQ), and qQ, the mean of the conjugate process, is "
            "at most 1 for q > 1; for q ≤ 1 Q = 1. With q = 2dp the rate on Z^d is twice the printed one."
        ),
        evidence=(_NUMBER, _LATTICE + "test_q_lies_between_the_exponential_and_e_times_it"),
    ),
)
ENTRIES = (*_NETWORK, *_MEAN_FIELD)
