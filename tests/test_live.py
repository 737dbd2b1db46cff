"""What a running sweep says."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmadapter.live import Watch
from rmadapter.store import Plan, Result, Store
from test_store import WHOLE, planned, result


def watch(tmp_path: Path, *known: Result) -> tuple[Watch, Store]:
    store = Store(tmp_path)
    store.create()
    for one in known:
        store.write(one)
    return Watch(Plan(protocol="few-shot", runs=(planned("a", "1"), planned("b", "2"))), store, 1), store


def test_failures_of_an_earlier_call_are_no_news_and_what_a_retry_came_to_is(tmp_path: Path) -> None:
    failed = result(error="it burns", sweep="earlier")
    watching, store = watch(tmp_path, failed, result("2", scores=WHOLE))
    assert watching.look() == [] and watching.cached == 1
    store.write(result(error="it burns", sweep="now"))
    assert [(run.id, found.sweep) for run, found in watching.look()] == [("1", "now")]
    assert watching.look() == []
    again, store = watch(tmp_path)
    store.write(result(sweep="now"))  # under way: nothing is scored yet
    assert again.look() == []
    store.write(result(scores=WHOLE, sweep="now"))
    assert [(run.id, found.error) for run, found in again.look()] == [("1", None)]


def test_what_is_over_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watching, store = watch(tmp_path, result("2", scores=WHOLE))
    read, asked = Store.read, list[str]()
    monkeypatch.setattr(Store, "read", lambda self, name: asked.append(name) or read(self, name))
    watching.look()
    assert asked == ["1"]
    store.write(result(scores=WHOLE, sweep="now"))
    assert len(watching.look()) == 1
    asked.clear()
    assert watching.look() == [] and asked == [] and not watching.grid.open


def test_lines_name_the_error_as_tables_do(tmp_path: Path) -> None:
    from rmadapter.live import _line

    watching, _ = watch(tmp_path)
    error = "Traceback (most recent call last):\n  File …\nRuntimeError: a bug\n"
    assert _line(planned(), result(error=error), watching).endswith("failed: RuntimeError: a bug")
    assert "base 50.0" in _line(planned(), result(scores=WHOLE), watching)
