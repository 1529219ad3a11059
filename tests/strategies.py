"""Every hypothesis strategy for the objects of the toolkit; small by default, limits are keywords."""
