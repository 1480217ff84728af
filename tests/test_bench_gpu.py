"""`make bench-gpu` runs to its end without a GPU, and judges what it measures."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest
import torch

from deepseek_mini import lesson
from tools.settings import ROOT

GPU = ROOT / "benchmarks" / "gpu.py"
spec = importlib.util.spec_from_file_location("benchmarks_gpu", GPU)
gpu = importlib.util.module_from_spec(spec)
sys.path.insert(0, str(GPU.parent))
spec.loader.exec_module(gpu)


def run(*arguments) -> subprocess.CompletedProcess:
    line = [sys.executable, str(GPU), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=300)


def test_a_dry_run_goes_all_the_way(tmp_path):
    pytest.importorskip("triton", reason="there is no Triton here")
    before = set(gpu.RESULTS.iterdir())
    done = run("--dry-run", "--only", "rmsnorm", "fp8_matmul", "--out", tmp_path / "r")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no time below means anything" in done.stdout
    report = json.loads((tmp_path / "r").read_text())
    assert report["dry run"] is True
    rows = {c["name"]: c for k in report["kernels"].values() for c in k["cases"]}
    assert all(row["error"] <= row["bound"] for row in rows.values())
    product = next(row for name, row in rows.items() if name.startswith("fp8 product"))
    assert (
        "ms" in product["peers"]["eager"] and "absent" in product["peers"]["deep_gemm"]
    )
    assert product["peers"]["cuBLAS bf16"]["error"] < 0.02
    assert set(gpu.RESULTS.iterdir()) == before


def test_a_kernel_whose_process_dies_is_said():
    died = gpu.in_a_process("no_such_kernel", True)
    assert (
        "No module named 'deepseek_mini.kernels.cases.no_such_kernel'" in died["failed"]
    )
    told = gpu.describe("no_such_kernel", died)
    assert told.startswith("no_such_kernel: ModuleNotFoundError")


def test_without_a_gpu_only_a_dry_run_works():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = run()
    assert done.returncode == 1
    assert done.stderr.startswith("There is no CUDA GPU here: use --dry-run")


def test_every_module_with_cases_is_found():
    assert {"rmsnorm", "rope", "quantise", "fp8_matmul"} <= set(gpu.kernel_names())


RATES = {"copy": 3.0, "bf16": 700.0, "fp8": None}


def case(**changes) -> dict:
    goals = [
        {"against": "copy", "at_least": 0.5},
        {"against": "bf16", "at_least": 0.5},
        {"against": "fp8", "at_least": 0.5},
        {"against": "eager", "at_least": 4.0},
        {"against": "absent", "at_least": 1.0},
        {"against": "TFLOP/s", "at_least": 400.0},
    ]
    row = {"name": "x", "error": 1e-3, "bound": 1e-2, "ms": 2.0, "moved": 4 * 10**9,
           "flops": 700 * 10**9, "goals": goals,
           "peers": {"eager": {"ms": 8.0}, "absent": {"absent": "no"}}}  # fmt: skip
    return row | changes


def test_goals_are_judged():
    row = case()
    gpu.judge(row, RATES)
    assert [goal["measured"] for goal in row["goals"]] == [
        pytest.approx(2 / 3),  # 4 GB in 2 ms are 2 TB/s
        pytest.approx(0.5),  # 0.7 TFLOP in 2 ms are 350 TFLOP/s
        None,
        4.0,
        None,
        pytest.approx(350.0),
    ]
    reached = [goal["reached"] for goal in row["goals"]]
    assert reached == [True, True, None, True, None, False]


def test_a_profile_is_shown_and_its_failure_fails_nothing():
    row = case()
    gpu.judge(row, RATES)
    told = gpu.describe("layer", {"cases": [row], "profile": "step  ms\nall  2.0"})
    assert told.splitlines()[-2:] == ["  step  ms", "  all  2.0"]
    assert not gpu.wrong({"kernels": {"layer": {"cases": [row], "profile": "none: x"}}})


def test_a_wrong_number_fails_the_run():
    def report(*cases):
        return {"kernels": {"rmsnorm": {"cases": list(cases)}}}

    assert not gpu.wrong(report(case()))
    assert gpu.wrong(report(case(), case(error=1.0)))
    assert gpu.wrong(report(case(error=float("nan"))))
    assert gpu.wrong(report(case(failed="no memory")))
    assert gpu.wrong({"kernels": {"rmsnorm": {"failed": "it crashed"}}})


def test_what_is_recorded_is_what_a_lesson_shows(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu, "RECORDED", tmp_path)
    monkeypatch.setattr(sys.modules["deepseek_mini.lesson.gpu"], "_RECORDED", tmp_path)
    row = case()
    gpu.judge(row, RATES)
    text = gpu.describe("rmsnorm", {"cases": [row]})
    gpu.record("rmsnorm", {"gpu": "H100", "date": "2026-11-22"}, text)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    lesson.gpu_section("rmsnorm")
    shown = capsys.readouterr().out
    assert shown == f"Recorded on H100, 2026-11-22:\n{text}\n"
    assert "2.000 ms, 2.00 TB/s, 350 TFLOP/s" in shown and "4.00 times as long" in shown


def test_the_result_is_named_after_the_gpu():
    report = {"gpu": "NVIDIA H100 80GB HBM3", "date": "2026-11-22"}
    assert gpu.file_name(report) == "h100-80gb-hbm3-2026-11-22.json"
