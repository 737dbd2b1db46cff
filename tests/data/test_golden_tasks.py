"""The images of every task are the same bytes everywhere: a hash over some of each split, as first computed.

python tests/data/test_golden_tasks.py      writes the hashes again, after a change of the artwork or the scenes
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from rmadapter.data import load_task, task_names

FILE = Path(__file__).with_name("golden_tasks.json")
SAMPLE = 16


def digest(name: str) -> str:
    """Hash of names, labels, and the pixels of evenly spaced items of every split."""
    task = load_task(name)
    found = hashlib.sha256(task.sha256().encode())
    for split in (task.train, task.val, task.test):
        for item in split.items[:: max(1, len(split) // SAMPLE)][:SAMPLE]:
            found.update(item.picture.name.encode())
            found.update(item.picture.open().tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("name", task_names(domains=True))
def test_task_images_are_the_golden_ones(name: str) -> None:
    assert digest(name) == json.loads(FILE.read_text())[name]


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: digest(name) for name in task_names(domains=True)}, indent=1) + "\n")
