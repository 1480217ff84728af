"""What `gpu.py` makes of its measurements: rates, goals reached or not, and tables."""

RATES = {"copy": "TB/s", "bf16": "TFLOP/s", "fp8": "TFLOP/s"}


def judge(case: dict, rates: dict) -> None:
    """Add to a case its rates, its floor, and what became of its goals."""
    if "ms" not in case:
        return
    ms, flops = case["ms"], case["flops"]
    case["TB/s"] = case["moved"] / ms / 1e9
    case["TFLOP/s"] = flops / ms / 1e9
    for goal in case["goals"]:
        goal["measured"] = ratio(case, goal["against"], rates)
        known = goal["measured"] is not None
        goal["reached"] = goal["measured"] >= goal["at_least"] if known else None


def ratio(case: dict, against: str, rates: dict) -> float | None:
    """What a goal compares; None where it could not be measured."""
    if against == "TFLOP/s":
        return case["TFLOP/s"]
    if against in RATES:
        ours = case["TB/s" if against == "copy" else "TFLOP/s"]
        return ours / rates[against] if rates[against] else None
    peer = case["peers"].get(against, {})
    return peer["ms"] / case["ms"] if "ms" in peer else None


def wrong(report: dict) -> bool:
    """Whether a kernel failed, or an error is over its bound."""
    for kernel in report["kernels"].values():
        if "failed" in kernel or any(not right(case) for case in kernel["cases"]):
            return True
    return False


def right(case: dict) -> bool:
    return "failed" not in case and case["error"] <= case["bound"]


def print_machine(report: dict) -> None:
    print(f"{report['gpu']}, torch {report['torch']}, Triton {report['triton']}")
    if report.get("dry run"):
        print("A dry run: interpreted at tiny sizes, and no time below means anything.")
    for name, unit in RATES.items():
        rate = report["rates"][name]
        told = "unknown" if rate is None else f"{rate:.3g} {unit}"
        print(f"  {name:<6} {told}")


def describe(name: str, kernel: dict) -> str:
    """A kernel's cases for a person."""
    lines = [f"{name}: {kernel['failed']}" if "failed" in kernel else name]
    for case in kernel.get("cases", []):
        lines.append(f"  {case['name']}")
        if "failed" in case:
            lines.append(f"    FAILED: {case['failed']}")
            continue
        verdict = "ok" if right(case) else "WRONG"
        lines.append(f"    error {case['error']:.1e} of {case['bound']:.1e}: {verdict}")
        speed = f"    {case['ms']:.3f} ms, {case['TB/s']:.2f} TB/s"
        lines.append(speed + f", {case['TFLOP/s']:.0f} TFLOP/s" * bool(case["flops"]))
        for peer, row in case["peers"].items():
            told = row.get("absent") or f"{row['ms'] / case['ms']:.2f} times as long"
            if row.get("error", 0) > case["bound"]:
                told += f", with an error of {row['error']:.1e}"
            lines.append(f"      {peer:<24} {told}")
    if "profile" in kernel:
        lines += ["  Where the time goes, and floors at the rates of this run:"]
        lines += [f"  {line}" for line in kernel["profile"].splitlines()]
    return "\n".join(lines)


def print_goals(report: dict) -> None:
    """PERFORMANCE's goals, in one table."""
    print(f"\n{'goal':<66} {'at least':>8} {'measured':>9}")
    for kernel in report["kernels"].values():
        for case in kernel.get("cases", []):
            for goal in case["goals"]:
                label = f"{case['name'][:48]}: {goal['against']}"
                got = goal.get("measured")
                told = "unknown" if got is None else f"{got:.2f}"
                mark = {True: "reached", False: "not reached"}.get(goal.get("reached"))
                mark = "dry run" if report.get("dry run") else mark or ""
                print(f"{label:<66} {goal['at_least']:>8.2f} {told:>9} {mark}")
