"""Questions about a network that tables answer, each beside its controls."""

from nadkit.questions.connections import how
from nadkit.questions.depth import where
from nadkit.questions.evidence import whether
from nadkit.questions.mistakes import why
from nadkit.questions.reading import answer, evidence_table
from nadkit.questions.recovery_runs import recovery
from nadkit.questions.seeds import stability

__all__ = ["answer", "evidence_table", "how", "recovery", "stability", "where", "whether", "why"]
