"""The audit's table, part by part, and the number beside each entry; :mod:`percolation.audit` puts them together."""
