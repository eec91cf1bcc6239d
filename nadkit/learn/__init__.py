"""Learn masks: which units of every layer each task needs.

One loop serves every objective and every learned control: draw each task's pictures, gate each picture by
its own task's row, ask the objective for a loss per task, step, repeat.
"""

from nadkit.learn.controls import learn_controls
from nadkit.learn.objectives import Batch, Objective, Official, OneVsRest
from nadkit.learn.routing import Routing, routing_per_picture
from nadkit.learn.verb import learn_masks

__all__ = [
    "Batch", "Objective", "Official", "OneVsRest", "Routing", "learn_controls", "learn_masks",
    "routing_per_picture",
]  # fmt: skip
