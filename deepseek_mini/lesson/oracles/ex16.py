"""Lesson 16, ESFT: the oracles add up one number after the other.

16.1 is in `expert_scores.py`, 16.2 in `expert_choice.py`, 16.3 in `lora_merge.py` and
16.4 in `part_of_stack.py`.
"""

from deepseek_mini.lesson.oracles.expert_choice import CHOICE
from deepseek_mini.lesson.oracles.expert_scores import SCORE
from deepseek_mini.lesson.oracles.lora_merge import MERGE
from deepseek_mini.lesson.oracles.part_of_stack import PART

LESSON = "16_esft"

EXERCISES = (SCORE, CHOICE, MERGE, PART)
