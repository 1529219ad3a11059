"""Lipschitz bounds of networks, from above and from below, and the cubes that they make.

Import the module that you mean: ``from lipschitz import upper``.
"""
