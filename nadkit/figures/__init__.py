"""Tables and pictures as plotly figures: no state, nothing shown, words for readers who do not see them.

Every figure has its alternative text in ``figure.layout.meta["alt"]``, computed from the same data.
"""

from nadkit.figures._connections import how, stability
from nadkit.figures._curves import curve
from nadkit.figures._depth import where
from nadkit.figures._difference import difference
from nadkit.figures._evidence import whether
from nadkit.figures._flow import flow, layers
from nadkit.figures._marks import MARKS, Mark
from nadkit.figures._matrix import matrix
from nadkit.figures._mistakes import why
from nadkit.figures._necessity import necessity
from nadkit.figures._pictures import pictures
from nadkit.figures._recovery import recovery
from nadkit.figures._river import river
from nadkit.figures._units import units

__all__ = [
    "MARKS", "Mark", "curve", "difference", "flow", "how", "layers", "matrix", "necessity", "pictures",
    "recovery", "river", "stability", "units", "where", "whether", "why",
]  # fmt: skip
