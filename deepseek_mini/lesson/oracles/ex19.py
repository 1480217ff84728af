"""Lesson 19, Prover: the oracles walk message by message, state by state.

19.1 is in `line_messages.py` and `line_verdicts.py`, 19.2 in `new_states.py`, 19.3 in
`discounted_arms.py`; 19.4, which Lean itself judges, is in `lean_proofs.py`.
"""

from deepseek_mini.lesson.oracles.discounted_arms import DUCB
from deepseek_mini.lesson.oracles.lean_proofs import PROOFS
from deepseek_mini.lesson.oracles.line_verdicts import VERDICTS
from deepseek_mini.lesson.oracles.new_states import STATES

LESSON = "19_prover"

EXERCISES = (VERDICTS, STATES, DUCB, PROOFS)
