"""How much each unit or position matters to a task by captum's attributions, and masks made of rankings.

The rankings are baselines: a learned mask should beat the mask of equal size that an attribution gives.
"""

from nadkit.heatmaps.attributions import unit_attributions
from nadkit.heatmaps.methods import ATTRIBUTIONS, DESCRIPTIONS, MAPPED, METHODS
from nadkit.heatmaps.positions import heatmap
from nadkit.heatmaps.ranking import ranked_masks

__all__ = [
    "ATTRIBUTIONS", "DESCRIPTIONS", "MAPPED", "METHODS", "heatmap", "ranked_masks", "unit_attributions",
]  # fmt: skip
