"""Numbers with their intervals: proportions, AUROC, calibration and the bootstrap."""

from nadkit.measures.calibration import calibrate, platt
from nadkit.measures.intervals import NO_VALUE, Estimate, effective, mover, proportion, wilson
from nadkit.measures.ranking import auroc, auroc_estimate
from nadkit.measures.rates import Decisions, rates, recomposed
from nadkit.measures.resampling import correlation, percentiles, resample_seeds, stratified_weights

__all__ = [
    "NO_VALUE", "Decisions", "Estimate", "auroc", "auroc_estimate", "calibrate", "correlation", "effective",
    "mover", "percentiles", "platt", "proportion", "rates", "recomposed", "resample_seeds",
    "stratified_weights", "wilson",
]  # fmt: skip
