"""The data of lesson 00: the releases, the claims, the self-test."""

import re

import pytest

import deepseek_mini as dm
from deepseek_mini.config import MLA
from deepseek_mini.lesson import atlas
from deepseek_mini.lesson.family import CLAIMS, LANGUAGE, REASONING, VISION
from deepseek_mini.lesson.selftest import QUESTIONS, verdict
from deepseek_mini.presets import PRESETS

EVERY = (*LANGUAGE, *REASONING, *VISION)


@pytest.mark.parametrize("releases", [LANGUAGE, REASONING, VISION])
def test_releases_are_in_order_and_named_once(releases):
    dates = [r.date for r in releases]
    assert dates == sorted(dates)
    assert all(re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", date) for date in dates)
    names = [r.name for r in releases]
    assert len(set(names)) == len(names)
    for r in releases:
        assert r.source and len(r.changed) > 10
        assert "|" not in "".join((r.name, r.sizes, r.changed, r.source))


def test_language_models_can_be_drawn():
    for r in LANGUAGE:
        assert r.attention in atlas.KINDS and r.total and r.name in atlas.LABELS
        assert r.active is None or r.active < r.total
    assert set(atlas.LABELS) == {r.name for r in LANGUAGE}
    assert set(atlas.SHORT) <= {r.name for r in EVERY}


def test_sizes_are_those_of_the_presets():
    with_preset = [r for r in EVERY if r.preset]
    assert {r.preset for r in with_preset} <= set(PRESETS)
    for r in with_preset:
        config = dm.Config.preset(r.preset)
        part = config.attention
        if r.total:
            parameters = dm.count(config).parameters / 1e9
            assert parameters == pytest.approx(r.total, rel=0.005)
        if isinstance(part, MLA):
            kind = "MLA"
        else:
            kind = "GQA" if part.n_kv_heads < part.n_heads else "MHA"
        assert r.attention == kind


def test_tables_have_a_cell_for_every_column(monkeypatch):
    given = []
    monkeypatch.setattr(atlas, "publish", given.append)
    atlas.family_table(EVERY)
    atlas.claims_table()
    for bundle, rows, columns in zip(given, (len(EVERY), len(CLAIMS)), (7, 3)):
        lines = bundle["text/markdown"].splitlines()
        assert len(lines) == rows + 2
        assert {line.count("|") for line in lines} == {columns + 1}
    assert "[2405.04434](https://arxiv.org/abs/2405.04434) §2.1" in lines[2]


def test_self_test_knows_its_answers():
    for question in QUESTIONS:
        assert question.computed() == question.right
        assert question.right in question.options
    right = {q.name: q.right for q in QUESTIONS}
    assert verdict(right).startswith("<p>7 of 7 answered, 7 right</p>")
    assert verdict(dict.fromkeys(right, "choose")) == (
        "<p>0 of 7 answered, 0 right</p><ul></ul>"
    )
    missed = verdict({**right, "5 softmax": "larger"})
    assert "5 softmax: not larger. Read: Dive into Deep Learning, §4.1" in missed
