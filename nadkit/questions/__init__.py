"""Questions about a network that tables answer, each beside its controls."""

from nadkit.questions.evidence import whether
from nadkit.questions.reading import answer, evidence_table

__all__ = ["answer", "evidence_table", "whether"]
