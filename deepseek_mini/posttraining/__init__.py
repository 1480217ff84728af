"""After pretraining: tasks with rules to judge them, GRPO and R1.

Everything is imported from its own module: ``from deepseek_mini.posttraining.grpo
import grpo_loss``.
"""
