"""Numbers from the literature, as (value, uncertainty, source)."""

SITE_THRESHOLD_2D = (0.59274605079210, 2e-14, "Jacobsen, J. Phys. A 48, 454003 (2015), square lattice, sites")
TORUS_WRAPPING_2D = (0.521058290, 1e-9, "Newman and Ziff, PRE 64, 016706 (2001), after Pinson; a given direction")
PROPER_POLYCUBES_3D = (
    (32, 348, 2836, 21225, 154741, 1123143, 8185403, 60088748),
    "OEIS A006763, fixed polycubes of n = 4, 5, ... cells that span three dimensions",
)
PROPER_POLYCUBES_N_MINUS_4 = (
    (1, 214, 21225, 1688424, 125055400, 9178531200, 687848686448),
    "OEIS A259015 (Barequet and Shalah 2015), fixed polycubes of n = 5, 6, ... cells that span n - 4 dimensions",
)
CLUSTER_DIMENSION_2D = (91 / 48, 0.0, "Stauffer and Aharony, Introduction to Percolation Theory; d_f in two dimensions")
ECLIPSE_EXACT_OVER_PRODUCT = (
    (2, 5, 10, 20, 30, 50, 75, 100),
    (0.84260, 0.80891, 0.82895, 0.76481, 0.73718, 0.66941, 0.62690, 0.55648),
    "networks of the experiments of Xu and Sivaranjani (2024), 80 wide; depth, norm of the product / product of norms",
)
CPLIP_OF_THE_FIRST_ECLIPSE_NETWORK = (0.461, 5e-4, "published with the ECLipsE experiments as CPLip, 2 layers of 80")
ECLIPSE_FAST_OVER_PRODUCT = (
    (2, 5, 10, 20, 30, 50, 75, 100),
    (0.92463, 0.90501, 0.91412, 0.88079, 0.86368, 0.82335, 0.79588, 0.75110),
    "the same networks, ECLipsE-Fast / product of norms, printed by the experiments of Xu and Sivaranjani (2024)",
)
