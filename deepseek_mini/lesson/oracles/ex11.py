"""Lesson 11, bias balancing: the oracles go expert by expert and token by token.

11.1 is in `bias_update.py`, 11.2 in `biased_gate.py`, 11.3 in `group_choice.py`,
11.4 in `sequence_balance.py` and 11.5 in `gate_module.py`.
"""

from deepseek_mini.lesson.oracles.bias_update import BIAS
from deepseek_mini.lesson.oracles.biased_gate import GATE
from deepseek_mini.lesson.oracles.gate_module import MODULE
from deepseek_mini.lesson.oracles.group_choice import GROUPS
from deepseek_mini.lesson.oracles.sequence_balance import SEQUENCE

LESSON = "11_bias_balancing"

EXERCISES = (BIAS, GATE, GROUPS, SEQUENCE, MODULE)
