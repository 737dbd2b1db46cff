"""A run folder becomes predictions of files."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rmadapter import adapter
from rmadapter.data.images import is_image
from rmadapter.data.task import check_class_names
from rmadapter.errors import DataError
from rmadapter.predictor import Prediction
from rmadapter.run import device_of

STDIN = "-"
"""Given as an image: paths are read from standard input, one a line."""


def predict_run(
    folder: Path,
    images: Sequence[str],
    *,
    classes: Sequence[str] | None = None,
    top: int = 5,
    reject: float = 0.0,
    device: str = "auto",
    threads: int | None = None,
) -> tuple[int | None, Iterator[Prediction]]:
    """Predictions of a run for files, one after another; a broken file is one with ``error``.

    Args:
        images: what ``find_images`` takes.
        classes: names to choose from; None: those that it was trained on.
        top, reject, threads: as in ``Predictor.stream``.

    Returns:
        How many there will be (None where standard input says it), and the predictions as they come.

    Raises:
        DataError: for a path that does not exist or holds no images, before anything is predicted.
    """
    if classes is not None:
        check_class_names(classes, "--classes")
    streamed = STDIN in images
    files = find_images(images)
    found = None if streamed else list(files)
    method = adapter.load(folder, device=device_of(device))
    predictor = method.predictor(classes or method.classes)
    stream = predictor.stream(files if found is None else found, top, reject=reject, skip_broken=True, threads=threads)
    return None if found is None else len(found), stream


def find_images(given: Iterable[str | Path]) -> Iterator[Path]:
    """Files as given, the images below folders by name, what a pattern with * ? [ matches, and - for standard input.

    Raises:
        DataError: for a path that does not exist, and a folder or a pattern that holds no images.
    """
    for name in given:
        path = Path(name)
        if str(name) == STDIN:
            yield from (Path(os.fsdecode(line.rstrip(b"\r\n"))) for line in sys.stdin.buffer if line.strip())
        elif os.path.isdir(path):  # noqa: PTH112 (False for a name that is too long, where Path raises)
            yield from _below(path)
        elif os.path.lexists(path):
            yield path
        elif glob.has_magic(str(name)):
            found = sorted(glob.glob(str(name), recursive=True))  # noqa: PTH207 (takes absolute patterns too)
            if not found:
                raise DataError(f"no file matches {name}")
            yield from find_images(found)
        else:
            raise DataError(f"{path} does not exist", remedy="check the path; a pattern goes in quotes")


def _below(folder: Path) -> Iterator[Path]:
    """Images below a folder by name; links are followed, and one that leads back is not."""
    found, seen = list[Path](), set[str]()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(here, name) for name in files if is_image(Path(name))]
    if not found:
        raise DataError(f"{folder} has no images in it", remedy="name one that has, or the files")
    yield from sorted(found)


def read_names(given: str) -> list[str]:
    """Class names separated by commas, or @FILE with one a line. Raises DataError where the file cannot be read."""
    if not given.startswith("@"):
        return [name.strip() for name in given.split(",")]
    try:
        lines = Path(given[1:]).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{given[1:]} is not a readable list of class names",
            got=str(error),
            allowed="a file in UTF-8 with one name a line",
        ) from error
    return [line.strip() for line in lines if line.strip()]
