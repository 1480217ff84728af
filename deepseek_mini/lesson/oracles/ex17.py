"""Lesson 17, GRPO: the oracles go answer by answer and token by token.

17.1 is in `group_signal.py`, 17.2 in `kl_samples.py`, 17.3 in `clipped_gain.py`,
17.4 in `token_weights.py`, 17.5 in `whole_grpo.py` and `grpo_by_hand.py`.
`through_logps.py` judges the gradients of 17.3 and 17.5.
"""

from deepseek_mini.lesson.oracles.clipped_gain import CLIP
from deepseek_mini.lesson.oracles.group_signal import ADVANTAGES
from deepseek_mini.lesson.oracles.kl_samples import KL
from deepseek_mini.lesson.oracles.token_weights import WEIGHTS
from deepseek_mini.lesson.oracles.whole_grpo import LOSS

LESSON = "17_grpo"

EXERCISES = (ADVANTAGES, KL, CLIP, WEIGHTS, LOSS)
