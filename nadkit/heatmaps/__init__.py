"""How much each unit matters to a task by captum's attributions, and masks made of such rankings.

The rankings are baselines: a learned mask should beat the mask of equal size that an attribution gives.
"""

from nadkit.heatmaps.attributions import unit_attributions
from nadkit.heatmaps.methods import ATTRIBUTIONS, DESCRIPTIONS, METHODS
from nadkit.heatmaps.ranking import ranked_masks

__all__ = ["ATTRIBUTIONS", "DESCRIPTIONS", "METHODS", "ranked_masks", "unit_attributions"]
