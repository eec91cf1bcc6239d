"""Networks and pictures whose true sub-architectures are planted, and therefore known.

A learned mask can be compared with evidence, but never with the truth, because nobody knows it. Here it is
known: the weights are set by hand so that each task needs certain units and no others. That makes a ruler
for every objective and every baseline.
"""

from nadkit.toy.plain import Planted, planted
from nadkit.toy.ruler import average_precision, compare

__all__ = ["Planted", "average_precision", "compare", "planted"]
