"""Widgets for notebooks: the explorer, and small ones for lessons.

Their JavaScript comes with the package and asks no other server for anything. Numbers come from `questions`,
`graph` and `heatmaps`.
"""

from nadkit.widgets.explorer import Explorer, explore
from nadkit.widgets.panel import Panel

__all__ = ["Explorer", "Panel", "explore"]
