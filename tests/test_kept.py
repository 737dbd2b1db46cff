from __future__ import annotations

from rmadapter.kept import Kept


def test_what_came_first_stays_within_the_budget() -> None:
    kept = Kept[str, int](10)
    kept.keep("first", 1, 6)
    kept.keep("too large", 2, 5)
    kept.keep("first", 3, 1)
    kept.keep("last", 4, 4)
    kept.keep("none left", 5, 1)
    assert [kept.find(key) for key in ("first", "too large", "last", "none left")] == [1, None, 4, None]


def test_room_is_what_is_left_and_all_of_it_after_clearing() -> None:
    kept = Kept[str, int](10)
    kept.keep("first", 1, 6)
    assert kept.has_room(4) and not kept.has_room(5)
    kept.clear()
    assert kept.find("first") is None and kept.has_room(10) and not kept.has_room(11)


def test_a_budget_of_0_keeps_nothing() -> None:
    kept = Kept[str, int](0)
    kept.keep("empty", 1, 0)
    assert kept.find("empty") is None
