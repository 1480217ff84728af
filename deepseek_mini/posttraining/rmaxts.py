"""RMaxTS: a tree search over unfinished proofs that is paid for reaching new states.

DeepSeek-Prover-V1.5 (arXiv 2408.08152, §3): the model writes the rest of a proof from a
node of the tree; Lean reads it; what is right before the first error becomes nodes; the
search is rewarded with 1 when that added a node, whether or not it helped.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from deepseek_mini.posttraining.lean import Hole, Verdict, judge_once
from deepseek_mini.posttraining.proofs import lean_term
from deepseek_mini.posttraining.theorems import Theorem

State = tuple[Hole, ...]
Writer = Callable[[list[tuple[Theorem, Sequence[str]]]], list[list[str]]]


@dataclass
class Arm:
    """What choosing something has brought: discounted rewards, discounted choices."""

    reward: float = 0.0
    count: float = 0.0

    def update(self, reward: float, discount: float) -> None:
        self.reward = discount * self.reward + reward
        self.count = discount * self.count + 1


@dataclass
class Node:
    """An unfinished proof, a state that Lean described, and what leads on from it."""

    steps: tuple[str, ...] = ()
    children: list["Node"] = field(default_factory=list)
    arm: Arm = field(default_factory=Arm)  # of going here from the parent
    expand: Arm = field(default_factory=Arm)  # of letting the model write from here


class Search:
    """The tree of one theorem. `discount` is the γ of the discounted UCB, 0.99."""

    def __init__(self, theorem: Theorem, discount: float = 0.99):
        self.theorem, self.discount = theorem, discount
        self.root, self.seen = Node(), set()
        self.samples, self.proof = 0, None

    @property
    def n_nodes(self) -> int:
        return 1 + len(self.seen)

    def select(self) -> list[Node]:
        """The way from the root to the node from which the model writes next."""
        path = [self.root]
        while True:
            node = path[-1]
            arms = [node.expand, *(child.arm for child in node.children)]
            best = max(range(len(arms)), key=scores(arms).__getitem__)
            if best == 0:
                return path
            path.append(node.children[best - 1])

    def update(
        self, path: list[Node], steps: Sequence[str], verdicts: Sequence[Verdict]
    ) -> None:
        """Take in what the model wrote at the end of `path`: `verdicts[i]` is Lean's on
        the proof with the first i + 1 of its `steps`.
        """
        self.samples += 1
        node, new = path[-1], False
        for i, verdict in enumerate(verdicts):
            so_far = (*path[-1].steps, *steps[: i + 1])
            if verdict.proved:
                if self.proof is None:
                    self.proof = so_far
                new = True
                break
            if verdict.reason is not None:  # the first error: the rest is cut off
                break
            if verdict.holes in self.seen:
                same = [c for c in node.children if c.steps == so_far]
                if not same:
                    break
                node = same[0]
                continue
            self.seen.add(verdict.holes)
            node.children.append(Node(so_far))
            node, new = node.children[-1], True
        path[-1].expand.update(float(new), self.discount)
        for visited in path[1:]:
            visited.arm.update(float(new), self.discount)


def scores(arms: Sequence[Arm]) -> list[float]:
    """Discounted UCB1: the mean reward, and more for what was chosen rarely."""
    total = sum(arm.count for arm in arms)
    return [
        math.inf
        if arm.count == 0
        else arm.reward / arm.count + math.sqrt(2 * math.log(max(total, 1)) / arm.count)
        for arm in arms
    ]


def rmaxts(
    theorems: Sequence[Theorem],
    write: Writer,
    budget: int,
    search: Callable[[Theorem], Search] = Search,
    known: dict[tuple[str, str], Verdict] | None = None,
) -> list[Search]:
    """Search for a proof of each theorem, `budget` samples of the model at most.

    All theorems are searched side by side, so that a round is one batch of the model
    and one run of Lean. `write` is given theorems with the steps so far. `search` makes
    a theorem's tree, `known` are verdicts as for `judge_once`.
    """
    known = {} if known is None else known
    searches = [search(theorem) for theorem in theorems]
    for _ in range(budget):
        open_ones = [search for search in searches if search.proof is None]
        if not open_ones:
            break
        paths = [search.select() for search in open_ones]
        texts = write([(s.theorem, p[-1].steps) for s, p in zip(open_ones, paths)])
        asked, spans = [], []
        for search, path, steps in zip(open_ones, paths, texts):
            terms = [
                lean_term([*path[-1].steps, *steps[: i + 1]]) for i in range(len(steps))
            ]
            spans.append(slice(len(asked), len(asked) + len(terms)))
            asked += [(search.theorem.statement, term) for term in terms]
        verdicts = judge_once(asked, known)
        for search, path, steps, span in zip(open_ones, paths, texts, spans):
            search.update(path, steps, verdicts[span])
    return searches


def independent(
    theorems: Sequence[Theorem], write: Writer, budget: int
) -> list[tuple[str, ...] | None]:
    """The first of up to `budget` whole proofs, each begun anew, that Lean accepts."""
    proofs: list[tuple[str, ...] | None] = [None] * len(theorems)
    known: dict[tuple[str, str], Verdict] = {}
    for _ in range(budget):
        open_ones = [i for i, proof in enumerate(proofs) if proof is None]
        texts = write([(theorems[i], ()) for i in open_ones]) if open_ones else []
        terms = [
            (theorems[i].statement, lean_term(t)) for i, t in zip(open_ones, texts)
        ]
        for i, steps, verdict in zip(open_ones, texts, judge_once(terms, known)):
            if verdict.proved:
                proofs[i] = tuple(steps)
    return proofs
