"""The package asks for nothing that Colab does not have, and imports quickly."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import colab, settings

PROJECT = tomllib.loads((settings.ROOT / "pyproject.toml").read_text())["project"]
RANGES = {
    canonicalize_name(requirement.name): requirement
    for requirement in map(Requirement, PROJECT["dependencies"])
}


def lines(name):
    text = (settings.ROOT / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pins(name):
    found = dict(line.split(";")[0].strip().split("==") for line in lines(name))
    return {canonicalize_name(key): version for key, version in found.items()}


@pytest.mark.parametrize("package", colab.true_versions())
def test_our_ranges_admit_colabs_versions(package):
    """`make test-colab` resolves the same with pip."""
    version = colab.true_versions()[package].split("+")[0]
    extras = [line for group in ("course", "test")
              for line in PROJECT["optional-dependencies"][group]]
    for requirement in [*RANGES.values(), *map(Requirement, extras)]:
        if canonicalize_name(requirement.name) == package:
            assert requirement.specifier.contains(version), f"{requirement}: {version}"


def test_dependencies_have_no_pins_and_no_urls():
    for requirement in RANGES.values():
        assert requirement.url is None
        operators = {part.operator for part in requirement.specifier}
        assert operators and operators <= {">=", "<", "!="}, requirement


def test_requirements_and_pyproject_say_the_same():
    groups = PROJECT["optional-dependencies"]
    stated = PROJECT["dependencies"] + groups["course"] + groups["test"]
    assert set(map(str, map(Requirement, lines("requirements.txt")))) == set(
        map(str, map(Requirement, stated))
    )


def test_every_requirement_is_pinned_inside_its_range():
    constraints = pins("constraints.txt")
    extras = PROJECT["optional-dependencies"]
    for line in [*lines("requirements.txt"), *extras["browser"], *extras["oracles"]]:
        requirement = Requirement(line)
        version = constraints[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), line


def test_torch_is_pinned_for_tests():
    assert re.fullmatch(r"\d+\.\d+\.\d+", pins("constraints.txt")["torch"])


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


def test_the_package_imports_only_what_it_asks_for():
    """transformers is an extra: lessons and tests compare with it, we never need it.
    Triton is one too: it stays in its folder, and in lesson 20's `interpreting`, which
    does without where there is none.
    """
    package = settings.ROOT / "deepseek_mini"
    paths = [p for p in package.rglob("*.py") if package / "kernels" not in p.parents]
    names = {name for path in paths for name in imported(path)}
    foreign = names - set(sys.stdlib_module_names) - {"deepseek_mini"}
    # cycler comes with matplotlib; reasoning-gym's tasks are used where it is there.
    asked = {*RANGES, "cycler", "reasoning-gym", "triton"}
    assert {canonicalize_name(name) for name in foreign} <= asked


HEAVY = ["matplotlib", "transformers", "ipywidgets", "tokenizers", "huggingface_hub",
         "IPython"]


def test_importing_the_package_imports_nothing_heavy_besides_torch():
    code = "import sys, torch; before = set(sys.modules); import deepseek_mini; "
    code += "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not set(done.stdout.split()) & set(HEAVY)
