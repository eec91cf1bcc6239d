"""Widgets for notebooks: the explorer, and small ones for lessons.

Their JavaScript comes with the package and asks no other server for anything. Numbers come from `questions`,
`graph` and `heatmaps`.
"""

from nadkit.widgets.explorer import Explorer
from nadkit.widgets.lessons import (
    GateBench,
    LayerClassGrid,
    LearningMonitor,
    MosaicPlayer,
    UnitGallery,
    gate_bench,
    layer_class_grid,
    learning_monitor,
    mosaic_player,
    unit_gallery,
)
from nadkit.widgets.panel import Panel
from nadkit.widgets.verb import explore

__all__ = [
    "Explorer", "GateBench", "LayerClassGrid", "LearningMonitor", "MosaicPlayer", "Panel", "UnitGallery",
    "explore", "gate_bench", "layer_class_grid", "learning_monitor", "mosaic_player", "unit_gallery",
]  # fmt: skip
