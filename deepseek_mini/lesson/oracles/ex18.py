"""Lesson 18, R1: the oracles count and cut by hand, without combinatorics or regex.

18.1 is in `pass_at.py`, 18.2 in `rule_reward.py` and 18.3 in `vote_count.py`.
"""

from deepseek_mini.lesson.oracles.pass_at import PASS
from deepseek_mini.lesson.oracles.rule_reward import REWARD
from deepseek_mini.lesson.oracles.vote_count import VOTE

LESSON = "18_r1"

EXERCISES = (PASS, REWARD, VOTE)
