"""Networks and pictures whose true sub-architectures are planted, and therefore known.

A learned mask can be compared with evidence, but never with the truth, because nobody knows it. Here it is
known: the weights are set by hand, or the parts trained apart, so that each task needs certain units and no
others. That makes a ruler for every objective and every baseline.
"""

from nadkit.toy.grades import GRADES, graded
from nadkit.toy.merging import merged
from nadkit.toy.planting import Planted, planted
from nadkit.toy.ruler import average_precision, compare

__all__ = ["GRADES", "Planted", "average_precision", "compare", "graded", "merged", "planted"]
