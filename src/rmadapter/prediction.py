"""A run folder becomes predictions of files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rmadapter import adapter
from rmadapter.data.images import is_image
from rmadapter.errors import DataError
from rmadapter.predictor import Prediction
from rmadapter.run import device_of


def predict_run(
    folder: Path, images: Sequence[Path], *, classes: Sequence[str] | None = None, top: int = 5, device: str = "auto"
) -> Iterator[Prediction]:
    """Predictions of a run for files and folders, one after another; a broken file is one with ``error``.

    Args:
        images: files, or folders that are searched for images.
        classes: names to choose from; None: those that it was trained on.
    """
    files = list(find_images(images))
    method = adapter.load(folder, device=device_of(device))
    yield from method.predictor(classes or method.classes).stream(files, top, skip_broken=True)


def find_images(paths: Iterable[Path]) -> Iterator[Path]:
    """Files as given, and the images below folders in sorted order. Raises DataError for a path that holds none."""
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.is_file() and is_image(file))
            if not found:
                raise DataError(f"{path} has no images in it")
            yield from found
        elif path.is_file():
            yield path
        else:
            raise DataError(f"{path} does not exist")
