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
