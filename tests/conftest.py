"""Fixtures shared by all tests. One thread: byte-for-byte comparisons, and less waiting on two cores."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the commands that tests start, too

from pathlib import Path

import pytest
import torch
from PIL import Image

from rmadapter import load_backbone, load_task
from rmadapter.backbones import Backbone
from rmadapter.data import Task

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pictoclip() -> Backbone:
    return load_backbone("pictoclip-s")


@pytest.fixture(scope="session")
def animals() -> Task:
    return load_task("pictograms/animals")


@pytest.fixture(scope="session")
def few(animals: Task) -> Task:
    """Six classes with all their items: quick to train and to test on."""
    return animals._only(range(6))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of three class folders with six small, distinct images each."""
    for label, name in enumerate(("red_panda", "otter", "tree frog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(6):
            color = (80 * label, 40 * index, 255 - 80 * label)
            Image.new("RGB", (40 + index, 60), color).save(tmp_path / "photos" / name / f"{index}.png")
    return tmp_path / "photos"
