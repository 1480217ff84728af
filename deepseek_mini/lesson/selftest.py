"""The self-test of lesson 00: seven questions, and what to read after a wrong answer.

The answers stand here and not in the notebook, where they would be read first. What
makes each right is computed in `computed`, which the tests compare with `right`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from deepseek_mini.lesson.widgets import Choice, Controls, slider_html

_UNANSWERED = "choose"


@dataclass(frozen=True)
class Question:
    """`right` is one of `options`; `read` is for those who chose another."""

    name: str
    options: tuple[str, ...]
    right: str
    read: str
    computed: Callable[[], str]


def _shape(value: np.ndarray | torch.Tensor) -> str:
    return str(tuple(value.shape))


def _gradient() -> str:
    x = torch.tensor(3.0, requires_grad=True)
    (x**2 + 2 * x).backward()
    return f"{x.grad.item():g}"


def _shifted_softmax() -> str:
    x = torch.tensor([1.0, 2.0, 3.0])
    same = torch.allclose((x + 100).softmax(0), x.softmax(0))
    return "the same" if same else "larger"


QUESTIONS = (
    Question(
        "1 broadcasting",
        ("(3, 1)", "(3, 4)", "an error"),
        "(3, 4)",
        "NumPy's page on broadcasting (numpy.org, User Guide)",
        lambda: _shape(np.ones((3, 1)) + np.ones(4)),
    ),
    Question(
        "2 batched matrices",
        ("(2, 5, 4)", "(2, 4, 5)", "an error"),
        "(2, 5, 4)",
        "torch.matmul in PyTorch's reference; Dive into Deep Learning, §2.3",
        lambda: _shape(torch.ones(2, 5, 3) @ torch.ones(3, 4)),
    ),
    Question(
        "3 einsum",
        ("(2, 3)", "(2, 7)", "(2, 3, 7)"),
        "(2, 7)",
        "torch.einsum in PyTorch's reference",
        lambda: _shape(torch.einsum("td,vd->tv", torch.ones(2, 3), torch.ones(7, 3))),
    ),
    Question(
        "4 transpose",
        ("[0, 1]", "[0, 3]", "[0, 2]"),
        "[0, 3]",
        "NumPy: the absolute basics for beginners (numpy.org), on transpose",
        lambda: str(np.arange(6).reshape(2, 3).T[0].tolist()),
    ),
    Question(
        "5 softmax",
        ("the same", "larger", "all equal"),
        "the same",
        "Dive into Deep Learning, §4.1, softmax regression; then exercise 00.1",
        _shifted_softmax,
    ),
    Question(
        "6 autograd",
        ("6", "8", "15"),
        "8",
        "PyTorch's tutorial A Gentle Introduction to torch.autograd",
        _gradient,
    ),
    Question(
        "7 cross-entropy",
        ("0.69", "6.93", "10"),
        "6.93",
        "Dive into Deep Learning, §4.1, on cross-entropy; then exercise 00.4",
        lambda: f"{-math.log(1 / 1024):.2f}",
    ),
)


def verdict(answers: dict[str, str]) -> str:
    """A line of HTML for each answered question: right, or what to read."""
    lines, right = [], 0
    for question in QUESTIONS:
        answer = answers[question.name]
        if answer == _UNANSWERED:
            continue
        if answer == question.right:
            right += 1
            lines.append(f"<li>{question.name}: right</li>")
        else:
            lines.append(
                f"<li>{question.name}: not {answer}. Read: {question.read}.</li>"
            )
    total = len(QUESTIONS)
    head = f"{len(lines)} of {total} answered, {right} right"
    return f"<p>{head}</p><ul>{''.join(lines)}</ul>"


def self_test() -> Controls:
    """Show a list to choose from for each question, and the verdict below."""
    names = {f"q{i}": question.name for i, question in enumerate(QUESTIONS)}
    choices = {
        key: Choice((_UNANSWERED, *question.options), label=question.name)
        for key, question in zip(names, QUESTIONS)
    }
    return slider_html(
        lambda **chosen: verdict({names[key]: v for key, v in chosen.items()}),
        alt="Seven questions to answer; below them, what is right and what to read.",
        **choices,
    )
