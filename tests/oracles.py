"""Slow and obviously right: the independent witnesses. Imports nothing of ours and uses other methods."""
