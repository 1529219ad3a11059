"""Lipschitz bounds of networks, from above and from below, and the cubes that they make.

Import the module that you mean: ``from lipschitz import upper``. From above: :mod:`~lipschitz.upper`,
:mod:`~lipschitz.rescaling`, :mod:`~lipschitz.liplt`, :mod:`~lipschitz.sdp`, and :mod:`~lipschitz.local` on a region;
from below: :mod:`~lipschitz.lower`; all of them: :mod:`~lipschitz.bounding`. Single layers: :mod:`~lipschitz.norms`,
:mod:`~lipschitz.convolutions`, :mod:`~lipschitz.pooling`. Between two inputs: :mod:`~lipschitz.segment`. Cubes:
:mod:`~lipschitz.cubes`; networks of Eqs. 8-10: :mod:`~lipschitz.fully_connected`.
A torch module becomes a list of steps in :mod:`~lipschitz.reading`, which everything else works on
(:mod:`~lipschitz.graph`); what torch's operations become stands in :mod:`~lipschitz.operations` and
:mod:`~lipschitz.layer_operations`, pointwise functions in :mod:`~lipschitz.pointwise`.
"""
