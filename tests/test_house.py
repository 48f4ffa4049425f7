"""The house itself: format, lint, layers, packaging, and the commands that README promises."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_code_is_formatted_and_without_lint():
    run("ruff", "format", "--check", ".")
    run("ruff", "check", ".")


def test_imports_run_downward_only():
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_readme_has_exactly_the_two_set_up_commands():
    blocks = re.findall(r"^```\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)
    commands = [line for block in blocks for line in block.splitlines() if "pip install" in line]
    assert commands == [
        "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/python -m raysearch run",
        'python3 -m venv .venv && .venv/bin/pip install -e ".[test]" && .venv/bin/python -m pytest',
    ]


def test_the_wheel_holds_the_three_packages_with_their_types_and_style(tmp_path):
    run("hatchling", "build", "-t", "wheel", "-d", str(tmp_path))
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    for name in ("raysearch", "searchers", "trainables"):
        assert f"{name}/__init__.py" in names
        assert f"{name}/py.typed" in names
    assert "raysearch/report/style.css" in names
    assert not [name for name in names if name.startswith(("tests", "benchmarks"))]


def test_each_dependency_says_which_file_needs_it():
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    for requirement in project["dependencies"]:
        line = next(line for line in text.splitlines() if f'"{requirement}"' in line)
        files = re.findall(r"[a-z_]+(?:/[a-z_]+)+(?:\.py)?", line.partition("#")[2])
        assert files, line
        for file in files:
            assert (ROOT / file).exists(), line
