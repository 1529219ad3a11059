"""Numbers from the literature, as (value, uncertainty, source)."""
