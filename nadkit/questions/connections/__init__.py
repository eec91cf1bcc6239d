"""How connections shape the flow: what the sub-architectures of a network share, layer by layer."""

from nadkit.questions.connections.answers import how_answer
from nadkit.questions.connections.verb import how

__all__ = ["how", "how_answer"]
