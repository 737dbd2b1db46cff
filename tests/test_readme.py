"""What the README says is true: its Python runs, its commands are CI's, its tree names every file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

import readme_table as table
from rmadapter.store import Store
from test_page import change, write

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    match = re.search(r"```python\n(.+?)```", README, re.DOTALL)
    assert match is not None
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.png"):
        Image.new("RGB", (80, 60), "orange").save(name)
    exec(compile(match[1], "README.md", "exec"), {})
    assert "accuracy" in capsys.readouterr().out
    assert (tmp_path / "runs" / "animals" / "adapter_config.json").is_file()


def test_ci_runs_the_readmes_test_command() -> None:
    command = re.search(r"^python3 -m venv .*pytest$", README, re.MULTILINE)
    assert command is not None
    assert command[0] in (ROOT / ".ci" / "run").read_text()


def test_the_tree_names_every_file() -> None:
    source = ROOT / "src" / "rmadapter"
    for file in source.rglob("*.py"):
        if file.name != "__init__.py" and "parts" not in file.parts:
            assert re.search(rf"(?<![a-z_]){re.escape(file.name)}", README), file.relative_to(source)
    for name in re.findall(r"\b([a-z_]+\.py)\b", README):
        assert list(source.rglob(name)), name


def test_the_table_of_results_is_what_the_command_prints() -> None:
    made = table.block(ROOT / table.RESULTS)
    assert f"{table.BEGIN}\n\n{made}\n\n{table.END}\n" in README, "run: make readme"


def test_the_table_of_a_sweep(tmp_path: Path) -> None:
    store = Store(tmp_path / "sweep")
    assert "No sweep is committed" in table.block(store.folder)
    store.create()
    write(store, "base-to-novel", ("zero_shot", "rmadapter"), ("birds", "cars"), (16,))
    made = table.block(store.folder)
    assert made.startswith("|  | base | novel | HM |\n")
    assert "| rmadapter | **65.5 ± 0.5** | **65.5 ± 0.5** | **65.5 ± 0.5** |" in made
    assert "8 runs of pictoclip-s, seeds 1, 2; rmadapter 0.1.0, torch None;" in made and "missing" not in made
    change(store, "base-to-novel", 4, scores={}, error="it burns")
    made = table.block(store.folder)
    assert "| rmadapter | – | – | – |" in made and "missing or failed (base-to-novel 1 of 8)" in made
    old = f"# Title\n{table.BEGIN}\nold\n{table.END}\nrest"
    assert table.put(old, "new") == f"# Title\n{table.BEGIN}\n\nnew\n\n{table.END}\nrest"
    with pytest.raises(SystemExit, match="no place"):
        table.put("# Title", "new")


PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """To files, and to headings within the page."""
    text = page.read_text(encoding="utf-8")
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE))
    headings = {heading.replace(" ", "-") for heading in words}
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, heading = target.partition("#")
        if not target.startswith("http"):
            assert (page.parent / file).exists(), target
            assert file or heading in headings, target
