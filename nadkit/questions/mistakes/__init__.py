"""Why pictures are misclassified: do errors land on similar sub-architectures, and which units flip one."""

from nadkit.questions.mistakes.verb import why

__all__ = ["why"]
