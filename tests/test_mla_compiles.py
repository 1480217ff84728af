"""MLA decode on sm_90: both warp groups work, and neither repeats the other's work."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("triton", reason="there is no Triton here")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("kernels are interpreted in this process", allow_module_level=True)

from dataclasses import replace

from deepseek_mini.kernels.cases import mla_decode
from tools.compile_gate import build


def multiplications(apart: bool) -> int:
    tile = mla_decode.TILES[90] | {"APART": apart}
    gate = replace(mla_decode.GATES[0], tiles={90: tile})
    return build(gate, 90).instructions["HGMMA"]


def test_the_warp_groups_share_the_scores():
    """A block of 64 keys takes 576 / 16 multiplications for the scores and 64 / 16 for
    the result. Without the branches Triton makes each group compute all scores: when
    this fails, a newer Triton has mended that, and the branches can go.
    """
    assert multiplications(apart=True) == 576 // 16 + 64 // 16
    assert multiplications(apart=False) == 2 * 576 // 16 + 64 // 16
