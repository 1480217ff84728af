-- The little library that the course's theorems stand on: Lean's own is not needed.
-- Proofs are terms; tactics and `match` would need Lean's library.
prelude
set_option autoImplicit false
set_option linter.all false
set_option maxHeartbeats 20000
set_option maxRecDepth 500
set_option format.width 100000
-- The compiler asks for these three; being unsafe, no theorem can use them.
unsafe axiom lcErased : Type
unsafe axiom lcProof {α : Prop} : α
unsafe axiom lcAny : Type
universe u
inductive False : Prop
inductive True : Prop where
  | intro : True
structure And (a b : Prop) : Prop where
  intro ::
  left : a
  right : b
inductive Or (a b : Prop) : Prop where
  | inl (h : a) : Or a b
  | inr (h : b) : Or a b
theorem Or.elim {a b c : Prop} (h : Or a b) (f : a → c) (g : b → c) : c := Or.rec f g h
theorem False.elim {c : Prop} (h : False) : c := False.rec (fun _ => c) h
inductive Eq {α : Sort u} : α → α → Prop where
  | refl (a : α) : Eq a a
inductive N : Type where
  | zero : N
  | succ : N → N
noncomputable def plus (a b : N) : N := N.rec a (fun _ r => N.succ r) b
theorem Eq.symm {a b : N} (h : Eq a b) : Eq b a :=
  Eq.rec (motive := fun x _ => Eq x a) (Eq.refl a) h
theorem Eq.trans {a b c : N} (h : Eq a b) (k : Eq b c) : Eq a c :=
  Eq.rec (motive := fun x _ => Eq a x) h k
theorem Eq.succ {a b : N} (h : Eq a b) : Eq (N.succ a) (N.succ b) :=
  Eq.rec (motive := fun x _ => Eq (N.succ a) (N.succ x)) (Eq.refl (N.succ a)) h
theorem N.induct {p : N → Prop} (z : p N.zero) (s : ∀ n, p n → p (N.succ n)) (n : N) : p n :=
  N.rec z s n
