"""Bad and odd input: each case has its exit code and its message, and docs/bad-input.md is the table of them.

python tests/test_bad_input.py      writes the table again: read every message before you commit it
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file

from rmadapter.cli import _note, cli

TABLE = Path(__file__).parent.parent / "docs" / "bad-input.md"
HEADER = """# Bad and odd input

<!-- Written by tests/test_bad_input.py, which also holds the commands to it. -->

Every kind of input below, with the exit code and what the command says (0: it works, and what it says about it; 2: the
user's mistake). `FOLDER` stands for where the files lie.

| input | command | code | message |
| --- | --- | --- | --- |
"""
GROWING = ("rmadapter", "pictoclip", "pictograms/")
COLOURS = ("red", "green", "blue")


@dataclass(frozen=True)
class Case:
    """What is made wrong in a folder, and the command that meets it."""

    name: str
    make: Callable[[Path], object]
    command: str
    """{} is the folder; data is {}/photos, a trained run {}/run."""
    code: int
    says: str
    """A part of the message that must be there."""


CASES: list[Case] = []
TRAIN = "train --data {}/photos --out {}/out --shots 2 --train.epochs 1"


def case(command: str, code: int, says: str) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    """Register a case under the first line of its docstring."""

    def register(make: Callable[[Path], object]) -> Callable[[Path], object]:
        CASES.append(Case((make.__doc__ or "").strip(), make, command, code, says))
        return make

    return register


def simple(name: str, command: str, code: int, says: str) -> None:
    """Register a case that needs no other files than the usual ones."""
    CASES.append(Case(name, lambda folder: None, command, code, says))


def picture(path: Path, colour: str = "red", size: tuple[int, int] = (24, 20)) -> Path:
    """Write one image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def photos(folder: Path, count: int = 4) -> Path:
    """Class folders of ``count`` images."""
    for colour in COLOURS:
        for index in range(count):
            picture(folder / "photos" / colour / f"{index}.png", colour)
    return folder / "photos"


def write(path: Path, text: str) -> Path:
    """Write a text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def split(folder: Path, **parts: list[list[object]]) -> None:
    """A split.json beside the photos; the parts that are not given are whole."""
    rows = {
        part: [[f"{colour}/{i}.png", label, colour] for label, colour in enumerate(COLOURS) for i in indices]
        for part, indices in (("train", (0, 1)), ("val", (2,)), ("test", (3,)))
    }
    write(folder / "photos" / "split.json", json.dumps({**rows, **parts}))


# Data ------------------------------------------------------------------------------------------------------------


@case(TRAIN, 2, "no class folders")
def _(folder: Path) -> None:
    """an empty folder"""
    shutil.rmtree(folder / "photos")
    (folder / "photos").mkdir()


@case(TRAIN, 2, "no class folders")
def _(folder: Path) -> None:
    """images without class folders"""
    for path in (folder / "photos").rglob("*.png"):
        path.rename(folder / "photos" / f"{path.parent.name}-{path.name}")
    for colour in COLOURS:
        (folder / "photos" / colour).rmdir()


@case(TRAIN, 2, "one class")
def _(folder: Path) -> None:
    """one class"""
    for colour in COLOURS[1:]:
        shutil.rmtree(folder / "photos" / colour)


@case(TRAIN, 2, "too few images")
def _(folder: Path) -> None:
    """a class with one image"""
    for index in range(1, 4):
        (folder / "photos" / "red" / f"{index}.png").unlink()


@case(TRAIN, 2, "too few images")
def _(folder: Path) -> None:
    """an empty class folder"""
    (folder / "photos" / "violet").mkdir()


@case(TRAIN, 2, "same name")
def _(folder: Path) -> None:
    """class names that are the same after normalising: dark_red, Dark Red"""
    for name in ("dark_red", "Dark Red"):
        shutil.copytree(folder / "photos" / "red", folder / "photos" / name)


@case(TRAIN, 2, "UTF-8")
def _(folder: Path) -> None:
    """a file name that is not UTF-8"""
    (folder / "photos" / "red" / "0.png").rename(os.fsdecode(os.fsencode(folder / "photos" / "red") + b"/\xe9.png"))


@case(TRAIN, 0, "links")
def _(folder: Path) -> None:
    """a loop of symbolic links"""
    (folder / "photos" / "red" / "again").symlink_to(folder / "photos")


@case(TRAIN, 2, "is empty")
def _(folder: Path) -> None:
    """a zero-byte image"""
    for path in (folder / "photos" / "red").glob("*.png"):
        path.write_bytes(b"")


@case(TRAIN, 2, "red")
def _(folder: Path) -> None:
    """truncated images"""
    for index in range(4):
        path = picture(folder / "photos" / "red" / f"{index}.png", size=(90, 90))
        path.write_bytes(path.read_bytes()[:-30])


@case(TRAIN, 2, "not a readable image")
def _(folder: Path) -> None:
    """text in files named .png"""
    for path in (folder / "photos" / "red").glob("*.png"):
        path.write_text("a picture of a cat")


@case(TRAIN + " --skip-broken", 0, "left out")
def _(folder: Path) -> None:
    """text in a file named .png, with --skip-broken"""
    write(folder / "photos" / "red" / "5.png", "a picture of a cat")


@case(TRAIN, 0, "steps")
def _(folder: Path) -> None:
    """PNG files named .jpg"""
    for path in list((folder / "photos").rglob("*.png")):
        path.rename(path.with_suffix(".jpg"))


@case(TRAIN, 2, "too large")
def _(folder: Path) -> None:
    """a decompression bomb of 60,000 x 60,000 pixels"""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + b"\0\0\0\0IDAT"
    for path in (folder / "photos" / "red").glob("*.png"):
        path.write_bytes(bomb)


@case(TRAIN, 0, "steps")
def _(folder: Path) -> None:
    """images of 1 x 1 pixel"""
    for path in list((folder / "photos").rglob("*.png")):
        picture(path, path.parent.name, (1, 1))


@case("predict {}/run {}/line.png", 0, "line.png")
def _(folder: Path) -> None:
    """an image of 1 x 30,000 pixels"""
    picture(folder / "line.png", size=(1, 30_000))


@case(TRAIN, 0, "beside")
def _(folder: Path) -> None:
    """images beside the class folders, and files that are no images"""
    picture(folder / "photos" / "loose.png")
    write(folder / "photos" / "red" / "notes.txt", "…")


@case(TRAIN.replace("--shots 2", "--shots 16"), 0, "fewer than 16")
def _(folder: Path) -> None:
    """fewer images than shots"""


@case(TRAIN, 2, "not on disk")
def _(folder: Path) -> None:
    """a split.json that names a missing image"""
    split(folder, test=[["red/9.png", 0, "red"], ["green/3.png", 1, "green"], ["blue/3.png", 2, "blue"]])


@case(TRAIN, 2, "split.json")
def _(folder: Path) -> None:
    """a split.json that is no JSON"""
    write(folder / "photos" / "split.json", "{train: [")


@case(TRAIN, 2, "stands in train and in test")
def _(folder: Path) -> None:
    """a split.json that learns from a test image"""
    split(folder, test=[["red/0.png", 0, "red"], ["green/3.png", 1, "green"], ["blue/3.png", 2, "blue"]])


@case(TRAIN, 2, "two names")
def _(folder: Path) -> None:
    """a split.json in which a label has two names"""
    split(folder, val=[["red/2.png", 0, "crimson"]])


@case(TRAIN.replace("photos ", "photos.csv "), 2, "photos.csv")
def _(folder: Path) -> None:
    """a CSV list without a header"""
    write(folder / "photos.csv", "photos/red/0.png,red\nphotos/blue/0.png,blue\n")


@case(TRAIN.replace("photos ", "photos.csv "), 2, "photos.csv")
def _(folder: Path) -> None:
    """a CSV list with an unknown split"""
    write(folder / "photos.csv", "path,label,split\nphotos/red/0.png,red,train\nphotos/blue/0.png,blue,dev\n")


@case(TRAIN.replace("photos ", "photos.jsonl "), 2, "photos.jsonl")
def _(folder: Path) -> None:
    """a JSONL list with a broken line"""
    write(folder / "photos.jsonl", '{"path": "photos/red/0.png", "label": "red"}\n{"path": \n')


@case(TRAIN, 0, "0 test images")
def _(folder: Path) -> None:
    """a train folder, and none for testing"""
    (folder / "photos").rename(folder / "train")
    (folder / "photos").mkdir()
    (folder / "train").rename(folder / "photos" / "train")


@case(TRAIN, 2, "needs a train folder")
def _(folder: Path) -> None:
    """val and test folders, and none to learn from"""
    for part in ("val", "test"):
        shutil.copytree(folder / "photos", folder / "parted" / part)
    shutil.rmtree(folder / "photos")
    (folder / "parted").rename(folder / "photos")


@case(TRAIN, 2, "violet")
def _(folder: Path) -> None:
    """a test class that training has not"""
    for part in ("train", "test"):
        shutil.copytree(folder / "photos", folder / "parted" / part)
    picture(folder / "parted" / "test" / "violet" / "0.png")
    shutil.rmtree(folder / "photos")
    (folder / "parted").rename(folder / "photos")


simple("a folder that is not there", TRAIN.replace("photos ", "fotos "), 2, "fotos")
simple("a misspelt task", "train --data pictograms/animal --out {}/out", 2, "did you mean 'pictograms/animals'")

# Settings --------------------------------------------------------------------------------------------------------

simple("an unknown setting", TRAIN + " --train.epoch 3", 2, "--train.epochs")
simple("an unknown method", TRAIN + " --method rmadaptor", 2, "did you mean 'rmadapter'")
simple("an unknown backbone", TRAIN + " --backbone ViT-B-61", 2, "ViT-B-61")
simple("a negative rank", TRAIN + " --method.rank -4", 2, "rank")
simple("a block beyond the tower", TRAIN + " --method.image_blocks 3-40", 2, "40")
simple("no shots", TRAIN + " --shots 0", 2, "shots")
simple("a template without {}", TRAIN + " --template photo", 2, "template")
simple("a rate at which the loss is not finite", TRAIN + " --train.lr 1e30 --train.epochs 9", 2, "not finite")
simple("a device that is not there", TRAIN + " --device cuda:7", 2, "cuda:7")
simple("half precision on a CPU", TRAIN + " --train.precision fp16", 2, "fp16")
simple("a pickled checkpoint as weights", TRAIN + " --backbone ViT-B-16 --pretrained {}/clip.pt", 2, "clip.pt")


@case(TRAIN + " --recipe {}/mine.toml", 2, "seeed")
def _(folder: Path) -> None:
    """a recipe with a misspelt key"""
    write(folder / "mine.toml", "seeed = 3\n")


@case(TRAIN + " --recipe {}/mine.toml", 2, "not a TOML file")
def _(folder: Path) -> None:
    """a recipe that is no TOML"""
    write(folder / "mine.toml", "seed = = 3\n")


# Output ----------------------------------------------------------------------------------------------------------


def refuse(number: int) -> Callable[..., object]:
    """A system call that fails."""

    def call(*_: object, **__: object) -> object:
        raise OSError(number, os.strerror(number))

    return call


@case(TRAIN, 2, "not empty")
def _(folder: Path) -> None:
    """an output folder that holds something"""
    write(folder / "out" / "thesis.txt", "…")


@case(TRAIN, 2, "is a file")
def _(folder: Path) -> None:
    """a file in place of the output folder"""
    write(folder / "out", "…")


@case(TRAIN, 2, "Read-only")
def _(folder: Path) -> None:
    """an output folder on a read-only disk"""
    pytest.MonkeyPatch.setattr(PATCH, tempfile, "mkstemp", refuse(errno.EROFS))


@case(TRAIN, 2, "No space")
def _(folder: Path) -> None:
    """a full disk"""
    pytest.MonkeyPatch.setattr(PATCH, os, "fsync", refuse(errno.ENOSPC))


# Runs and adapters -----------------------------------------------------------------------------------------------

simple("a folder that is no run", "evaluate {}/photos", 2, "holds no run")
simple("a run that is trained again", "train --data {}/photos --out {}/run", 2, "not empty")
simple("a run resumed with another recipe", "train --out {}/run --resume --method.rank 4", 2, "another recipe")


@case("evaluate {}/run", 2, "damaged")
def _(folder: Path) -> None:
    """cut-off adapter tensors"""
    file = folder / "run" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


@case("evaluate {}/run", 2, "does not fit")
def _(folder: Path) -> None:
    """an adapter with a tensor less"""
    file = folder / "run" / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, file)


@case("evaluate {}/run", 2, "does not fit")
def _(folder: Path) -> None:
    """an adapter with a tensor of another shape"""
    file = folder / "run" / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors[sorted(tensors)[0]] = torch.zeros(3)
    save_file(tensors, file)


@case("evaluate {}/run", 2, "another backbone")
def _(folder: Path) -> None:
    """an adapter of another backbone"""
    file = folder / "run" / "adapter_config.json"
    config = json.loads(file.read_text())
    config["backbone"]["sha256"] = "0" * 64
    file.write_text(json.dumps(config))


@case("evaluate {}/run", 2, "adapter_config.json")
def _(folder: Path) -> None:
    """an adapter's config with an unknown key"""
    file = folder / "run" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "colour": "red"}))


@case("train --out {}/run --resume", 2, "damaged")
def _(folder: Path) -> None:
    """a damaged checkpoint"""
    (folder / "run" / "adapter_config.json").unlink()
    write(folder / "run" / "checkpoint.safetensors", "nothing")


@case("evaluate {}/run", 2, "not on disk")
def _(folder: Path) -> None:
    """photos that were moved"""
    (folder / "photos").rename(folder / "elsewhere")


@case("evaluate {}/run --data {}/photos", 2, "of the 12 images")
def _(folder: Path) -> None:
    """photos of which some are gone"""
    shutil.rmtree(folder / "photos" / "red")


# Predictions -----------------------------------------------------------------------------------------------------

simple("a missing file", "predict {}/run {}/nowhere.png", 2, "does not exist")
simple("a pattern without a match", "predict {}/run {}/*.webp", 2, "no file matches")
simple("a threshold above 1", "predict {}/run {}/photos --reject 1.5", 2, "1.5")
simple("two formats at once", "predict {}/run {}/photos --json --csv", 2, "exclude each other")
simple("an empty class name", "predict {}/run {}/photos --classes red,,blue", 2, "empty class name")
simple("a class name twice", "predict {}/run {}/photos --classes red,Red", 2, "same name")
simple("a class name beyond the context", f"predict {{}}/run {{}}/photos --classes {'x' * 80},red", 2, "tokens")
simple("a missing list of names", "predict {}/run {}/photos --classes @{}/names.txt", 2, "names.txt")


@case("predict {}/run {}/empty", 2, "no images")
def _(folder: Path) -> None:
    """a folder without images"""
    (folder / "empty").mkdir()


@case("predict {}/run {}/photos/red --top 1", 2, "1 of 4 images")
def _(folder: Path) -> None:
    """a broken file among others"""
    (folder / "photos" / "red" / "2.png").write_bytes(b"GIF89a")


# Transfer --------------------------------------------------------------------------------------------------------

TRANSFER = "transfer {}/run --to pictoclip-s --out {}/out"
simple("a transfer to an unknown backbone", TRANSFER.replace("clip", "klip"), 2, "did you mean 'pictoclip-s'")
simple("a transfer of no run", TRANSFER.replace("run ", "photos "), 2, "holds no run")
simple("a transfer into the run itself", TRANSFER.replace("out", "run").replace("--run", "--out"), 2, "not empty")
simple("more classes than logits", TRANSFER + " --method.dimension 2", 2, "do not fit into 2 logits")
simple("a ridge of 0", TRANSFER + " --method.ridge 0", 2, "ridge is not valid")
simple("a missing list of auxiliary names", TRANSFER + " --method.auxiliary {}/names.txt", 2, "names.txt")


@case(TRANSFER + " --method.auxiliary {}/names.txt", 2, "too few auxiliary names")
def _(folder: Path) -> None:
    """a list of auxiliary names that is too short"""
    write(folder / "names.txt", "# two of these are classes\nRed\ngreen\nviolet\n")


@case(TRANSFER, 2, "another backbone")
def _(folder: Path) -> None:
    """a transfer of an adapter of another backbone"""
    file = folder / "run" / "adapter_config.json"
    config = json.loads(file.read_text())
    config["backbone"]["sha256"] = "0" * 64
    file.write_text(json.dumps(config))


# The test --------------------------------------------------------------------------------------------------------

PATCH = pytest.MonkeyPatch()


def invoke(command: str, folder: Path) -> tuple[int, str]:
    """Exit code and message of a command, as a shell would show them."""
    arguments = [part.replace("{}", str(folder)) if "/" in part else part for part in command.split(" ")]
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = _note
        result = CliRunner().invoke(cli, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, (result.stderr if result.exit_code else result.output).replace(str(folder), "FOLDER")


def row(case: Case, folder: Path, run: Path) -> str:
    """The table's line of a case, which is run."""
    photos(folder)
    shutil.copytree(run.parent / "run", folder / "run")
    task = folder / "run" / "task.json"
    task.write_text(task.read_text().replace(str(run.parent), str(folder)))
    record = folder / "run" / "run.json"
    record.write_text(record.read_text().replace(str(run.parent), str(folder)))
    try:
        case.make(folder)
        code, message = invoke(case.command, folder)
    finally:
        PATCH.undo()
    assert code == case.code, message
    assert case.says in message, message
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    told = [_short(line) for line in lines if not line.startswith(("Usage:", "Try "))] if code else _about_data(lines)
    said = "<br>".join(told).replace("|", "\\|")
    return f"| {case.name} | `{case.command.replace('{}', 'FOLDER')}` | {code} | {said} |"


def _short(line: str) -> str:
    """Lists that grow with the package are not what is tested."""
    return "allowed: …" if line.startswith("allowed:") and any(name in line for name in GROWING) else line


def _about_data(lines: list[str]) -> list[str]:
    """Of what a command that worked says: no times, which differ."""
    return [line for line in lines if line.startswith(("split:", "note:"))]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run, to be copied and damaged."""
    return train_one(tmp_path_factory.mktemp("bad"))


def train_one(folder: Path) -> Path:
    """Photos and a run trained on them."""
    photos(folder)
    code, message = invoke(TRAIN.replace("{}/out", "{}/run"), folder)
    assert code == 0, message
    return folder / "run"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input(case: Case, trained: Path, tmp_path: Path) -> None:
    assert row(case, tmp_path, trained) in TABLE.read_text(encoding="utf-8").splitlines()


def test_the_table_has_nothing_else() -> None:
    lines = TABLE.read_text(encoding="utf-8").removeprefix(HEADER).splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == [case.name for case in CASES]
    assert len({case.name for case in CASES}) == len(CASES) >= 40


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "first").mkdir()
        run = train_one(Path(place) / "first")
        rows = []
        for number, each in enumerate(CASES):
            folder = Path(place) / str(number)
            folder.mkdir()
            rows.append(row(each, folder, run))
            print(rows[-1], file=sys.stderr)
    TABLE.write_text(HEADER + "\n".join(rows) + "\n", encoding="utf-8")
