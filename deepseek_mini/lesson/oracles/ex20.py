"""Lesson 20, GPU kernels: the oracles are in PyTorch, the answers are interpreted.

20.1 is in `floor_of_product.py`, 20.2 in `scaled_sum.py`, 20.3 in `padded_rows.py`,
20.4 in `softmax_in_pieces.py`, 20.5 in `ragged_product.py`; what people get wrong in
every kernel is in `kernel_faults.py`.
"""

from deepseek_mini.lesson.oracles.floor_of_product import FLOOR
from deepseek_mini.lesson.oracles.padded_rows import NORM
from deepseek_mini.lesson.oracles.ragged_product import PRODUCT
from deepseek_mini.lesson.oracles.scaled_sum import SUM
from deepseek_mini.lesson.oracles.softmax_in_pieces import SOFTMAX

LESSON = "20_gpu_kernels"

EXERCISES = (FLOOR, SUM, NORM, SOFTMAX, PRODUCT)
