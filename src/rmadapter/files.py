"""Writing files so that a kill or a full disk never leaves half of one behind."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock, Timeout

from rmadapter.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

TEMPORARY = ".part"
"""How the name of a file ends while it is written; a kill can leave one behind."""
LEFT = re.compile(rf"\..+\.[a-z0-9_]{{8}}{re.escape(TEMPORARY)}")
"""Their names."""
TRIES, PAUSE = 3, 0.1
"""How often a file is moved into place or read, and seconds in between."""
LOCK = ".lock"
"""What a process holds while it changes a folder; the empty file stays behind."""
T = TypeVar("T")


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with a temporary path beside ``path``, flush it to disk, then move it into place.

    Raises:
        UserError: naming the file, when it cannot be written (read-only folder, full disk); the old file stays.
    """
    temporary = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes files that only their owner can read
        patiently(lambda: temporary.replace(path))
    except OSError as error:
        raise UserError(
            f"cannot write {path}", got=error.strerror, remedy="free space or name another folder"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def patiently(act: Callable[[], T]) -> T:
    """What ``act`` returns; tried again where it is refused, as Windows does while another process has the file."""
    for _ in range(1, TRIES):
        try:
            return act()
        except PermissionError:
            time.sleep(PAUSE)
    return act()


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows, the header among them, as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write_text(path: Path, text: str) -> None:
    """Text in UTF-8, atomically."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_tensors(path: Path, tensors: dict[str, Tensor], about: dict[str, str] | None = None) -> None:
    """A safetensors file, atomically. The library's own writer reports a full disk by an error of its own kind."""
    from safetensors.torch import save

    content = save(tensors, about)
    write_atomic(path, lambda temporary: temporary.write_bytes(content))


def write_json(path: Path, content: Any) -> None:
    """JSON with its keys in the order given, indented, atomically."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a lock, which is a file that stays behind; without waiting, yields False while another process holds it.

    Raises:
        UserError: naming the file, where no lock can be made.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        yield False
        return
    except OSError as error:
        raise UserError(
            f"cannot lock {path}", got=error.strerror, remedy="name a folder that can be written to"
        ) from error
    try:
        yield True
    finally:
        lock.release()


def is_file(path: Path) -> bool:
    """Is there a file? Not where its name is too long or a folder above it is closed, for which ``Path`` raises."""
    return os.path.isfile(path)  # noqa: PTH113


def new_folder(path: Path, resume: bool = False, instead: str = "") -> Path:
    """An empty folder to write into; half-written files that a kill left in it are removed.

    Args:
        resume: take one that has files.
        instead: another way out for the message, from its comma on.

    Raises:
        UserError: when it holds files already (unless ``resume``), is a file, or cannot be made.
    """
    try:
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file, and a folder is needed")
        path.mkdir(parents=True, exist_ok=True)
        there = list(path.iterdir())
        left = [file for file in there if LEFT.fullmatch(file.name)]
        if any(file not in left and file.name != LOCK for file in there) and not resume:
            raise UserError(f"{path} is not empty", remedy=f"name another folder, or remove this one{instead}")
        for file in left:
            file.unlink()
    except OSError as error:
        raise UserError(
            f"cannot use {path}", got=error.strerror, remedy="name a folder that can be written to"
        ) from error
    return path
