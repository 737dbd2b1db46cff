"""Things for the next time, within a budget of bytes.

Those that came first stay: what is read over and over in the same order would push itself out of a cache of the latest.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Thing = TypeVar("Thing")


class Kept(Generic[Key, Thing]):
    """Things by key, as long as there was room when they came.

    Args:
        budget: bytes of all things together; 0 keeps nothing.
    """

    def __init__(self, budget: int) -> None:
        self.budget = self._left = budget
        self._things: dict[Key, Thing] = {}

    def find(self, key: Key) -> Thing | None:
        """What was kept under a key."""
        return self._things.get(key)

    def has_room(self, size: int) -> bool:
        """Would so many bytes be kept?"""
        return 0 < size <= self._left

    def keep(self, key: Key, thing: Thing, size: int) -> None:
        """Keep a thing of so many bytes, if there is room and none under its key."""
        if key not in self._things and self.has_room(size):
            self._left -= size
            self._things[key] = thing

    def clear(self) -> None:
        """Forget all."""
        self._left = self.budget
        self._things.clear()
