"""Public data sets on a disk: what is missing, ``data check``, protocols over them, and runs that find them again."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rmadapter import run
from rmadapter.cli import cli
from rmadapter.data import Task, load_task, public_names
from rmadapter.data.catalog import entries, entry
from rmadapter.data.public import ROOT
from rmadapter.errors import DataError
from rmadapter.protocols import legs
from rmadapter.recipe import Recipe
from trees import aircraft_tree, one_each, picture, split_tree, write

pytestmark = pytest.mark.filterwarnings("ignore:.*is not as published")  # tiny trees are not


@pytest.fixture(autouse=True)
def no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ROOT, raising=False)


def command(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


# What is missing -------------------------------------------------------------------------------------------------


def test_what_is_missing_is_said_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not known(.|\n)*--root DIR(.|\n)*RMADAPTER_DATA"):
        load_task("public/dtd")
    with pytest.raises(DataError, match=r"dtd is missing(.|\n)*rmadapter data check public/dtd"):
        load_task("dtd", root=tmp_path)
    train, test = one_each(["banded", "polka-dotted"], "{0}/{0}_{1}.jpg")
    split_tree(tmp_path, "dtd", train, test=test)
    file = tmp_path / "dtd" / "split_zhou_DescribableTextures.json"
    (tmp_path / "dtd" / "images" / "banded" / "banded_2.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 4 images are not in .*images\n.*banded/banded_2.jpg"):
        load_task("dtd", root=tmp_path)
    text = file.read_text()
    file.unlink()
    with pytest.raises(DataError, match=r"DescribableTextures.json is missing(.|\n)*DATASETS.md"):
        load_task("dtd", root=tmp_path)
    write(file, text)
    (tmp_path / "dtd" / "images").rename(tmp_path / "dtd" / "pictures")
    with pytest.raises(DataError, match=r"dtd/images is missing"):
        load_task("dtd", root=tmp_path)
    with pytest.raises(DataError, match="did you mean 'oxford_pets'"):
        load_task("oxford_pet", root=tmp_path)
    with pytest.raises(DataError, match="did you mean 'public/oxford_pets'"):
        load_task("oxford_pets")


def test_check_reports_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    train, test = one_each(["banded", "polka-dotted"], "{0}/{0}_{1}.jpg")
    split_tree(tmp_path, "dtd", train, test=test)
    before = sorted(tmp_path.rglob("*"))
    result = command("data", "check", "dtd", "--root", str(tmp_path))
    assert result.exit_code == 2 and "dtd is not on this disk as published" in result.stderr
    digest = hashlib.sha256((tmp_path / "dtd" / "split_zhou_DescribableTextures.json").read_bytes()).hexdigest()
    assert f"there: split_zhou_DescribableTextures.json, sha256 {digest}" in result.stdout
    for said in ("2 training, 0 validation and 2 test images of 2 classes", "2 classes instead of 47"):
        assert said in result.stdout
    assert "0 val images instead of 1128" in result.stdout and "obtained: " in result.stdout
    (tmp_path / "dtd" / "images" / "banded" / "banded_1.jpg").unlink()
    assert (
        "missing: 1 of 4 images, such as images/banded/banded_1.jpg"
        in command("data", "check", "public/dtd", "--root", str(tmp_path)).stdout
    )
    picture(tmp_path / "dtd" / "images" / "banded" / "banded_1.jpg")
    assert sorted(tmp_path.rglob("*")) == before
    write(tmp_path / "dtd" / "split_zhou_DescribableTextures.json", "{")
    every = command("data", "check", "all", "--root", str(tmp_path))
    assert every.exit_code == 2 and "15 of 15 data sets are not" in every.stderr
    assert "cannot be read" in every.stdout and "missing: classnames.txt" in every.stdout
    assert command("data", "check", "dtdd", "--root", str(tmp_path)).exit_code == 2


def test_check_is_content_with_what_is_as_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aircraft_tree(tmp_path)
    known = entry("fgvc_aircraft").model_copy(update={"classes": 3, "train": 3, "val": 1, "test": 1})
    monkeypatch.setitem(entries(), "fgvc_aircraft", known)
    result = command("data", "check", "fgvc_aircraft", "--root", str(tmp_path))
    assert result.exit_code == 0, result.stderr
    assert "as published" in result.stdout and "not as" not in result.stdout and result.stdout.count("sha256") == 4
    assert "not as published" not in load_task("fgvc_aircraft", root=tmp_path).note


# Protocols and runs ----------------------------------------------------------------------------------------------


def test_public_is_a_word_of_protocols() -> None:
    for name in ("base-to-novel", "few-shot"):
        assert {leg.data for leg in legs(name, ["public"], None, [])} == set(public_names())
    (leg,) = legs("cross-dataset", ["public"], None, [])
    assert leg.data == "public/imagenet" and len(leg.evaluations) == 11
    assert [e.data for e in leg.evaluations if e.role == "target"] == list(public_names()[1:])
    (leg,) = legs("domain-generalization", ["public"], None, [])
    assert [e.data for e in leg.evaluations] == [
        f"public/imagenet{suffix}" for suffix in ("", "v2", "_sketch", "_a", "_r")
    ]


def test_public_names_are_listed() -> None:
    listed = command("list", "tasks").stdout
    assert all(name in listed for name in public_names(domains=True))


def few_pets(root: Path) -> Task:
    train = [(f"{n}_{i}.jpg", k, n) for k, n in enumerate(("abyssinian", "beagle", "pug")) for i in range(3)]
    split_tree(root, "oxford_pets", train, test=[(f"{n}_9.jpg", k, n) for _, k, n in train[::3]])
    return load_task("oxford_pets", root=root)


def test_a_run_finds_its_data_again_where_they_were_and_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, out = tmp_path / "old", tmp_path / "new", tmp_path / "run"
    task = few_pets(old)
    train = ["train", "--data", "public/oxford_pets", "--out", str(out), "--shots", "1", "--train.epochs", "1"]
    refused = command(*train)
    assert refused.exit_code == 2 and "--root DIR" in refused.stderr
    done = command(*train, "--root", str(old))
    assert done.exit_code == 0, done.stderr
    assert json.loads((out / "task.json").read_text())["data"] == str(old / "oxford_pets" / "images")
    recipe = run.read_run(out).recipe
    assert recipe.data == "public/oxford_pets" and str(old) not in json.dumps(recipe.plain())
    assert ROOT not in os.environ

    found, own = run.task_of(out, None)
    assert own and found.sha256() == task.sha256() and found.root == old / "oxford_pets" / "images"
    old.rename(new)
    for arguments in ([], ["--data", "public/oxford_pets"]):
        result = command("evaluate", str(out), *arguments, "--root", str(new), "--no-plots", "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["images"] == 3
    monkeypatch.setenv(ROOT, str(new))
    found, own = run.task_of(out, None)
    assert own and found.root == new / "oxford_pets" / "images" and found.sha256() == task.sha256()
    assert run.load_recipe_task(Recipe(data="public/oxford_pets")).sha256() == task.sha256()
