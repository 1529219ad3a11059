"""Numbers from the literature, as (value, uncertainty, source)."""

SITE_THRESHOLD_2D = (0.59274605079210, 2e-14, "Jacobsen, J. Phys. A 48, 454003 (2015), square lattice, sites")
TORUS_WRAPPING_2D = (0.521058290, 1e-9, "Newman and Ziff, PRE 64, 016706 (2001), after Pinson; a given direction")
