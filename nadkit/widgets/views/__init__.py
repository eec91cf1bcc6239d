"""What each panel draws, as plain data: functions of the subject, the choice and the answers there are."""

from nadkit.widgets.views.controls import controls_state
from nadkit.widgets.views.evidence import METRICS, evidence_state
from nadkit.widgets.views.matrix import MATRICES, matrix_state
from nadkit.widgets.views.network import map_state
from nadkit.widgets.views.pictures import pictures_state
from nadkit.widgets.views.unit import unit_state

__all__ = [
    "MATRICES", "METRICS", "controls_state", "evidence_state", "map_state", "matrix_state", "pictures_state",
    "unit_state",
]  # fmt: skip
