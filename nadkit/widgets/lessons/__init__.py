"""Small widgets for lessons, each usable alone."""

from nadkit.widgets.lessons.bench import GateBench, gate_bench
from nadkit.widgets.lessons.gallery import UnitGallery, unit_gallery
from nadkit.widgets.lessons.grid import LayerClassGrid, layer_class_grid
from nadkit.widgets.lessons.monitor import LearningMonitor, learning_monitor
from nadkit.widgets.lessons.player import MosaicPlayer, mosaic_player

__all__ = [
    "GateBench", "LayerClassGrid", "LearningMonitor", "MosaicPlayer", "UnitGallery", "gate_bench",
    "layer_class_grid", "learning_monitor", "mosaic_player", "unit_gallery",
]  # fmt: skip
