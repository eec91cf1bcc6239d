"""Questions about a network that tables answer, each beside its controls.

Beside the questions stand the numbers that a display asks for one by one: where units respond most, what
layers do on a picture, and what the classes score.
"""

from nadkit.questions.conditions import draw_untrained
from nadkit.questions.connections import how
from nadkit.questions.connections.pairs import overlaps
from nadkit.questions.depth import MosaicCourse, MosaicCourses, mosaic_course, mosaic_courses, where
from nadkit.questions.evidence import whether
from nadkit.questions.glances import class_scores, class_table, layer_maps
from nadkit.questions.mistakes import why
from nadkit.questions.peaks import UnitPeaks, unit_peaks
from nadkit.questions.reading import answer, evidence_table
from nadkit.questions.recovery_runs import recovery
from nadkit.questions.seeds import stability
from nadkit.questions.shares import layer_shares

__all__ = [
    "MosaicCourse", "MosaicCourses", "UnitPeaks", "answer", "class_scores", "class_table", "draw_untrained",
    "evidence_table", "how", "layer_maps", "layer_shares", "mosaic_course", "mosaic_courses", "overlaps",
    "recovery", "stability", "unit_peaks", "where", "whether", "why",
]  # fmt: skip
