"""What importing costs, which way imports go, and what the package exports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rmadapter

SOURCE = Path(rmadapter.__file__).parent

# Low to high: a module may import from its own layer and from those below it.
LAYERS = [
    {"errors", "files", "settings", "recipes", "provenance", "progress", "allocator", "kept"},
    {"backbones", "data"},
    {"frame"},
    {"method"},
    {"methods"},
    {"predictor", "adapter", "checkpoint", "solve", "views", "gradients"},
    {"calibration", "evaluation", "train", "transfer"},
    {"recipe", "protocols", "arms"},
    {"store"},
    {"plots", "report"},
    {"run"},
    {"scoring", "prediction", "demo", "kit", "sweep", "tables", "carrying", "ways", "measures", "compare"},
    {"live", "page"},
    {"cli"},
]


def part(module: str) -> str:
    """'rmadapter.data.task' -> 'data'."""
    return [*module.split("."), ""][1]


def imported(file: Path) -> set[str]:
    """Parts of the package that a file imports when it runs (not those only for type checking)."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typing = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rmadapter"):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {part(name) for name in names}
        elif isinstance(node, ast.Import):
            found |= {part(alias.name) for alias in node.names if alias.name.startswith("rmadapter.")}
    return found


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_go_one_way(file: Path) -> None:
    own = file.relative_to(SOURCE).with_suffix("").parts[0]
    if own == "__init__":
        return  # names of all layers, imported on first use
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    assert own in level, f"{own} has no layer: add it to LAYERS"
    allowed_up = {("method", "predictor")}  # method.predictor() makes one, imported inside the call
    for other in imported(file) - {"__version__"}:
        assert level[other] <= level[own] or (own, other) in allowed_up, f"{own} imports {other}"


@pytest.mark.parametrize("command", ["import rmadapter", "import rmadapter.cli as c; c.cli(['--help'])"])
def test_nothing_slow_is_imported(command: str) -> None:
    code = (
        "import sys\ntry:\n    " + command + "\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'open_clip', 'matplotlib'} & sys.modules.keys(), 'something slow was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_public_names() -> None:
    assert set(rmadapter.__all__) == set(rmadapter._HOME)
    for name in rmadapter.__all__:
        assert getattr(rmadapter, name) is not None
        assert name in dir(rmadapter)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rmadapter.nothing
