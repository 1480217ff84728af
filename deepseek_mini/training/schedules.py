"""The learning rate of a step, as pure functions: ``schedule(step, steps, warmup)``.

All give a factor of the peak, with ``step`` counted from 0. All warm up on a straight
line, whose first step is already above zero.
"""

import math


def multi_step(step: int, steps: int, warmup: int) -> float:
    """DeepSeek-LLM's: √0.1 of the peak after 80% of the steps, a tenth after 90%.

    arXiv 2401.02954, §2.3. It ends where cosine ends, and training can be continued
    from the long first stage with more data.
    """
    if step < warmup:
        return (step + 1) / warmup
    if 10 * step < 8 * steps:
        return 1.0
    return 0.316 if 10 * step < 9 * steps else 0.1


def cosine(step: int, steps: int, warmup: int) -> float:
    """Half a cosine from the peak down to a tenth of it."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2


def warmup_stable_decay(step: int, steps: int, warmup: int) -> float:
    """The peak until 90% of the steps, then exponentially down to a tenth of it.

    MiniCPM's (arXiv 2404.06395, §4.2), which finds that a decay over the last tenth of
    training is enough. Until then nothing depends on where the end is, so one long run
    can be ended at several lengths.
    """
    if step < warmup:
        return (step + 1) / warmup
    done = (10 * step - 9 * steps) / steps  # of the decay; negative before it
    return 0.1 ** max(0.0, done)


def constant(step: int, steps: int, warmup: int) -> float:
    """The peak, after the warmup."""
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


SCHEDULES = {
    "multi-step": multi_step,
    "cosine": cosine,
    "wsd": warmup_stable_decay,
    "constant": constant,
}
