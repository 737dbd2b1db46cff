"""Tasks from a list of images: a CSV file with a header, or a JSON object a line (.jsonl).

Columns or keys: ``path``, counted from the list's folder or absolute; ``label``, the class's name, or a number from 0
on beside ``class_name``; ``split`` (train, val, test), for a list that is split already; ``class_name``, the label's
name in prompts.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rmadapter.data.fewshot import split_by_class
from rmadapter.data.folders import PART_NAMES, PARTS, check_encodable, counts, drawn
from rmadapter.data.task import PHOTO, ImageFile, Item, Task
from rmadapter.errors import DataError, nearest
from rmadapter.files import is_file

SUFFIXES = (".csv", ".jsonl")
COLUMNS = ("path", "label", "split", "class_name")


class Row(NamedTuple):
    """What a list says of one image; an empty text is one that is not given."""

    line: int
    path: str
    label: str
    split: str
    class_name: str


def read_list(file: Path, split_seed: int, template: str | None) -> Task:
    """A task from a list of images.

    Classes stand in the order of their names, or of their labels where these are numbers. Without a split of its own a
    list is split 50/20/30 % a class, the same whatever the order of its lines.

    Raises:
        DataError: naming file and line, for what cannot be read, is missing, or contradicts itself.
    """
    text = _text(file)
    rows = list(_csv_rows(file, text) if file.suffix.lower() == ".csv" else _json_rows(file, text))
    if not rows:
        raise DataError(f"{file} lists no images", allowed="a line an image, with its path and its label")
    names = _class_names(file, rows)
    labels = {label: index for index, label in enumerate(names)}
    classes = tuple(name.replace("_", " ") for name in names.values())
    items = [Item(labels[row.label], picture) for row, picture in zip(rows, _pictures(file, rows), strict=True)]
    note = f"{file.name}: {len(rows)} images of {len(names)} classes"
    if _given(file, rows, "split"):
        parts = _parts(file, rows, items)
        note += f"; split as listed: {counts(*parts)}"
    else:
        _check_enough(file, rows)
        ordered = sorted(items, key=lambda item: item.picture.name)
        parts = split_by_class(ordered, split_seed, list(names))
        note += f"; {drawn(parts, split_seed)}"
    train, val, test = (tuple(part) for part in parts)
    return Task(file.stem, classes, template or PHOTO, train, val, test, note, root=file.parent)


def _text(file: Path) -> str:
    """The file's text, without the byte-order mark that spreadsheets write."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read", got=error.strerror) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{file}, line {line}: not UTF-8",
            got=repr(error.object[error.start : error.end]),
            remedy="save it as UTF-8",
        ) from None


def _csv_rows(file: Path, text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            where = f"{file}, line {reader.line_num}"
            if not any(cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                _check_keys(
                    where, header, "separate columns by commas" if ";" in cells[0] or "\t" in cells[0] else None
                )
            elif len(cells) != len(header):
                raise DataError(
                    f"{where}: {len(cells)} cells under a header of {len(header)}",
                    got=", ".join(cells),
                    remedy='put a path or label that has a comma in it into "double quotes"',
                )
            else:
                yield _row(where, reader.line_num, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: not CSV", got=str(error)) from error


def _json_rows(file: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            content = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: not JSON", got=str(error), allowed="one object a line") from error
        if not isinstance(content, dict):
            raise DataError(f"{where}: not an object", got=line.strip()[:80], allowed='{"path": …, "label": …}')
        _check_keys(where, list(content))
        yield _row(where, number, content)


def _check_keys(where: str, keys: list[str], hint: str | None = None) -> None:
    """Raise DataError unless path and label are there, and nothing that is not known: it may be a split misspelt."""
    if not set(keys) & set(COLUMNS):
        named = "begin with a line that names the columns: path,label"
        raise DataError(f"{where}: no column has a known name", got=", ".join(keys), remedy=hint or named)
    for key in keys:
        if key not in COLUMNS:
            known = hint or nearest(key, COLUMNS) or "remove it"
            raise DataError(f"{where}: unknown column {key!r}", allowed=", ".join(COLUMNS), remedy=known)
        if keys.count(key) > 1:
            raise DataError(f"{where}: column {key!r} stands there twice")
    missing = [key for key in ("path", "label") if key not in keys]
    if missing:
        raise DataError(f"{where}: no {' and no '.join(missing)}", got=", ".join(keys), allowed=", ".join(COLUMNS))


def _row(where: str, line: int, content: dict[str, Any]) -> Row:
    values = dict.fromkeys(COLUMNS, "")
    for key, value in content.items():
        if (
            isinstance(value, bool)
            or not isinstance(value, str | int | None)
            or (isinstance(value, int) and key != "label")
        ):
            raise DataError(f"{where}: {key} is not a text", got=repr(value))
        values[key] = "" if value is None else str(value).strip()
    for key in ("path", "label"):
        if not values[key]:
            raise DataError(f"{where}: an empty {key}")
    return Row(line, **values)


def _given(file: Path, rows: list[Row], column: str) -> bool:
    """Whether a column is filled in. Raises DataError when it is on some lines only."""
    empty = [row.line for row in rows if not getattr(row, column)]
    if empty and len(empty) < len(rows):
        raise DataError(
            f"{file}, line {empty[0]}: an empty {column}, and other lines have one",
            got=f"{len(empty)} of {len(rows)} lines",
            remedy=f"give every line its {column}, or none",
        )
    return not empty


def _class_names(file: Path, rows: list[Row]) -> dict[str, str]:
    """Labels to class names, in the order of the classes."""
    numbers = all(re.fullmatch(r"[+-]?\d+(\.\d*)?", row.label) for row in rows)
    if not _given(file, rows, "class_name"):
        if numbers:
            raise DataError(
                f"{file}: labels are numbers, and a prompt needs names",
                got=rows[0].label,
                remedy="add a column class_name, or write the classes' names as labels",
            )
        names = {row.label: row.label for row in rows}
    else:
        names = {}
        for row in rows:
            if names.setdefault(row.label, row.class_name) != row.class_name:
                raise DataError(
                    f"{file}, line {row.line}: label {row.label!r} has two names",
                    got=f"{names[row.label]!r} and {row.class_name!r}",
                )
    if len(names) == 1:
        raise DataError(f"{file} has one class, and a classifier needs two", got=next(iter(names.values())))
    if not numbers:
        return dict(sorted(names.items(), key=lambda pair: pair[1]))
    ordered = dict(sorted(names.items(), key=lambda pair: float(pair[0])))
    if list(ordered) != [str(number) for number in range(len(ordered))]:
        raise DataError(
            f"{file}: labels that are numbers must be 0 to n - 1",
            got=", ".join(list(ordered)[:5]) + (" …" if len(ordered) > 5 else ""),
            allowed=f"0 to {len(ordered) - 1}",
            remedy="number the classes anew, or write their names as labels",
        )
    return ordered


def _pictures(file: Path, rows: list[Row]) -> Iterator[ImageFile]:
    lines: dict[str, int] = {}
    for row in rows:
        where = f"{file}, line {row.line}"
        check_encodable(row.path, where)
        path = file.parent / row.path
        first = lines.setdefault(os.path.normpath(path), row.line)
        if first != row.line:
            raise DataError(f"{where}: {row.path} stands in line {first} already", remedy="remove one of them")
        if not is_file(path):
            raise DataError(
                f"{where}: {row.path} is not on disk", remedy=f"paths count from {file.parent}, or are absolute"
            )
        yield ImageFile(path, Path(row.path).as_posix())


def _parts(file: Path, rows: list[Row], items: list[Item]) -> tuple[list[Item], list[Item], list[Item]]:
    """Items by the split column."""
    parts: dict[str, list[Item]] = {part: [] for part in PARTS}
    for row, item in zip(rows, items, strict=True):
        part = PART_NAMES.get(row.split.lower())
        if part is None:
            raise DataError(
                f"{file}, line {row.line}: unknown split {row.split!r}",
                allowed="train, val, test",
                remedy=nearest(row.split.lower(), PART_NAMES),
            )
        parts[part].append(item)
    if not parts["train"]:
        raise DataError(f"{file}: no line is in train", remedy="split the list into train and test, or not at all")
    return parts["train"], parts["val"], parts["test"]


def _check_enough(file: Path, rows: Iterable[Row]) -> None:
    """Raise DataError for a class that cannot be split."""
    for label, count in Counter(row.label for row in rows).items():
        if count < 2:
            raise DataError(
                f"{file}: class {label!r} has too few images: one to learn from and one to test on are needed",
                got=count,
                remedy="list more of its images, or remove it",
            )
