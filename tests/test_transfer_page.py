"""The tables of docs/experiments/transfer.md say what the sweep says."""

from __future__ import annotations

from pathlib import Path

import pytest

import transfer_page as page
from rmadapter.store import Store
from test_page import change, write

TASKS = ("pictograms/animals", "birds", "cars")


def test_tables_by_hand(tmp_path: Path) -> None:
    store = Store(tmp_path / "sweep")
    store.create()
    write(store, "base-to-novel", ("zero_shot", "rmadapter"), TASKS, (16,))
    number = 2 * len(TASKS) + 4  # rmadapter on cars, seed 1
    (plan,) = store.plans()
    known = store.read(plan.runs[number].id)
    assert known is not None and plan.runs[number].recipe["data"] == "cars" and plan.runs[number].recipe["seed"] == 1
    lower = {key: score.model_copy(update={"accuracy": 45.0}) for key, score in known.scores.items()}
    change(store, "base-to-novel", number, scores=lower)
    made = page.blocks(store.folder)
    # zero-shot: 55 and 56 in seeds 1 and 2; rmadapter: 65 and 66, but 45 on cars in seed 1
    assert "| zero_shot | 55.5 ± 0.5 | 55.5 ± 0.5 | 55.5 ± 0.5 | 55.5 ± 0.5 |" in made["scores"]
    assert "| rmadapter | 62.2 ± 3.8 | 62.2 ± 3.8 | 62.2 ± 3.8 | 60.5 ± 5.5 |" in made["scores"]
    row = "| rmadapter | +6.7 ± 3.3 (2/3) | +3.3, +10.0 | 0.500 | +5.0 ± 5.0 (1/2) |"  # cars: (-10 + 10) / 2
    assert made["claims"].startswith("**novel − zero_shot**") and made["claims"].count(row) == 2
    assert "| zero_shot | -6.7 ± 3.3 (0/3) | -3.3, -10.0 | 0.500 | -5.0 ± 5.0 (0/2) |" in made["claims"]
    change(store, "base-to-novel", number, scores={}, error="it burns")
    made = page.blocks(store.folder)
    assert "| rmadapter | – | – | – | – | – | – |" in made["scores"] and "1 of 12" in made["scores"]
    assert "| rmadapter | – | –, +10.0 | – | – |" in made["claims"]


def test_the_page_is_filled_between_its_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / page.RESULTS
    store = Store(folder)
    store.create()
    write(store, "base-to-novel", ("zero_shot", "rmadapter"), TASKS, (16,))
    file = tmp_path / page.PAGE
    file.parent.mkdir(parents=True)
    marks = [f"{page.BEGIN.format(name)}\nold\n{page.END.format(name)}\n" for name in ("scores", "claims", "cost")]
    file.write_text("words\n".join(marks))
    monkeypatch.setattr(page, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["transfer_page.py", "--write"])
    page.main()
    text = file.read_text()
    assert "old" not in text and text.count("words\n") == 2
    assert all(block in text for block in page.blocks(folder).values())


def test_the_page_is_what_the_tool_prints() -> None:
    text = (page.ROOT / page.PAGE).read_text(encoding="utf-8")
    for name, block in page.blocks(page.ROOT / page.RESULTS).items():
        filled = page.put(text, block, page.BEGIN.format(name), page.END.format(name))
        assert filled == text, f"{name}: run make readme"
