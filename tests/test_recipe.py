"""Recipes: precedence, unknown keys, files."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

import rmadapter as ra
from rmadapter import recipes, sweep
from rmadapter.arms import Arm
from rmadapter.backbones import Backbone
from rmadapter.data import Task, public_names
from rmadapter.errors import SettingError
from rmadapter.evaluation import harmonic_mean
from rmadapter.methods import method_names
from rmadapter.protocols import PROTOCOLS
from rmadapter.recipe import Recipe, resolve
from rmadapter.train import TrainSettings
from small import small_folder

STEPLESS = ("zero_shot", "linear_probe")


def test_everything_is_filled_in() -> None:
    recipe = resolve(None, {})
    assert recipe.method == "rmadapter" and recipe.backbone == "pictoclip-s"
    from rmadapter.methods.rmadapter import RMAdapterSettings

    assert recipe.method_settings.keys() == RMAdapterSettings.model_fields.keys()
    assert Recipe.parse(recipe.plain(), "again") == recipe


def test_the_backbone_decides_the_defaults() -> None:
    small, large = resolve(None, {}), resolve(None, {"backbone": "ViT-B-16"})
    assert large.method_settings["scale"] == 0.001 and large.train.optimizer == "sgd" and large.train.lr == 0.0015
    assert small.method_settings["scale"] != 0.001 and small.train.optimizer == "adamw"
    assert resolve("rmadapter/pictograms", {}) == small
    alone = resolve("rmadapter", {})  # a shipped recipe that is named stands alone, whatever the backbone
    assert alone.backbone == "pictoclip-s" and alone.method_settings["scale"] == 0.001 and alone.train.lr == 0.0015


def test_a_protocol_may_have_published_settings_of_its_own(tmp_path: Path) -> None:
    maple = {"method": {"name": "maple"}}
    usual, across = (resolve(None, {**maple, "backbone": "ViT-B-16"}, p) for p in ("base-to-novel", "cross-dataset"))
    assert (usual.train.epochs, usual.train.lr) == (5, 0.0035) and (across.train.epochs, across.train.lr) == (2, 0.0026)
    assert usual.method_settings["depth"] is None and across.method_settings["depth"] == 3
    assert across.train.batch_size == usual.train.batch_size == 4
    given = resolve(None, {"method": {"name": "maple", "depth": 5}, "backbone": "ViT-B-16"}, "cross-dataset")
    assert given.method_settings["depth"] == 5
    assert resolve(None, maple, "cross-dataset") == resolve(None, maple)  # the small world has one budget
    clip = {"backbone": str(small_folder(tmp_path))}
    arm = Arm("maple", {"method": {"name": "maple"}})
    plan = sweep.plan("cross-dataset", [arm], data=["pictograms/plants", "pictograms/food"], common=clip)
    assert plan.runs[0].recipe["train"]["lr"] == 0.0026


def test_public_data_sets_and_shots_may_have_published_settings_of_their_own() -> None:
    def made(method: str, protocol: str = "", **changes: Any) -> Recipe:
        return resolve(None, {"method": {"name": method}, "backbone": "ViT-B-16", **changes}, protocol)

    assert made("mma").train.batch_size == 16 and made("mma", data="public/imagenet").train.batch_size == 128
    assert made("mma", data="public/imagenet", train={"batch_size": 8}).train.batch_size == 8
    assert resolve(None, {"method": {"name": "mma"}, "data": "public/imagenet"}).train.batch_size == 16  # pictoclip
    given = {"data": "public/food101"}
    coprompt = made("coprompt", "base-to-novel", **given)
    assert (coprompt.method_settings["depth"], coprompt.method_settings["weight"], coprompt.train.epochs) == (9, 0.5, 5)
    few = [made("coop", "few-shot", shots=shots) for shots in (1, 2, 4, 8, 16)]
    assert [recipe.train.epochs for recipe in few] == [50, 100, 100, 200, 200]
    assert {recipe.method_settings["length"] for recipe in few} == {16}
    assert made("coop", "few-shot", shots=16, data="public/imagenet").train.epochs == 50
    assert made("coop", shots=1).train.epochs == 200  # by itself
    average = [made("promptsrc", "few-shot", data=f"public/{name}").method_settings for name in ("dtd", "ucf101")]
    assert [settings["average_mean"] for settings in average] == [45.0, 30.0]


def test_a_small_backbone_may_have_settings_of_its_own(
    few: Task, pictoclip: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over those of all small ones; in a recipe, a method and a call of fit alike."""
    own = (recipes.FOLDER / "rmadapter.toml").read_text(encoding="utf-8")
    case = '[[cases]]\nbackbones = ["pictoclip-s"]\nmethod = {rank = 5}\ntrain = {epochs = 1, lr = 0.5}\n\n'
    text = own.replace("[pictograms.method]", f"{case}[pictograms.method]")
    (tmp_path / "rmadapter.toml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(recipes, "FOLDER", tmp_path)
    recipe, other = resolve(None, {}), resolve(None, {"backbone": "pictoclip-m"})
    assert (recipe.method_settings["rank"], recipe.train.lr, recipe.train.epochs) == (5, 0.5, 1)
    assert recipe.train.optimizer == "adamw" and recipe.train.updates is None  # the rest is all small ones'
    assert other.method_settings["rank"] != 5 and other.train.lr != 0.5
    method = ra.RMAdapter(pictoclip)
    assert method.settings.plain()["rank"] == 5
    assert ra.fit(method, few.shots(1, seed=1), show_progress=False).steps == 1


def test_a_shipped_recipe_has_known_sections() -> None:
    for file in recipes.FOLDER.glob("*.toml"):
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        assert set(content) <= {*recipes.TABLES, *recipes.VARIANTS, recipes.CASES, recipes.PUBLISHED}
        for case in content.get(recipes.CASES, []):
            conditions = {"protocols", "data", "shots", "backbones"}
            assert set(case) <= conditions | recipes.TABLES and recipes.TABLES & {*case} and conditions & {*case}
            assert {*case.get("protocols", [])} <= {*PROTOCOLS} and {*case.get("data", [])} <= {*public_names()}
            about = {key: case[key][0] for key in ("data", "shots") if key in case}
            backbone = case.get("backbones", ["ViT-B-16"])[0]
            changes = {"method": {"name": file.stem}, "backbone": backbone, **about}
            found = resolve(None, changes, case.get("protocols", [""])[0])
            shown = {"method": found.method_settings, "train": found.train.plain()}
            later = content[recipes.CASES][content[recipes.CASES].index(case) + 1 :]
            for table in recipes.TABLES & {*case}:
                for key, value in case[table].items():
                    assert shown[table][key] == value or any(key in other.get(table, {}) for other in later)
        assert all("setting" in quoted for quoted in content.get(recipes.PUBLISHED, {}).values())


def test_precedence(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'data = "pictograms/food"\nshots = 4\nseed = 7\n[method]\nrank = 8\n[train]\nepochs = 3\nlr = 0.1\n'
    )
    recipe = resolve(file, {"shots": "2", "train": {"lr": "0.2"}, "method": {"hidden": "none"}})
    assert (recipe.data, recipe.shots, recipe.seed) == ("pictograms/food", 2, 7)
    assert (recipe.train.epochs, recipe.train.lr, recipe.train.seed) == (3, 0.2, 7)
    assert recipe.method_settings["rank"] == 8 and recipe.method_settings["hidden"] is None
    assert resolve(file, {"method": {"image_blocks": "2-3"}}).method_settings["image_blocks"] == [2, 3]


def test_of_epochs_and_updates_the_one_that_is_given_counts(tmp_path: Path) -> None:
    assert resolve(None, {}).train.updates == 600
    for given in ({"epochs": "3"}, {"epochs": 3}):
        train = resolve("rmadapter/pictograms", {"train": given}).train
        assert (train.epochs, train.updates) == (3, None)
        assert resolve(None, {"train": given}).train == train
    file = tmp_path / "mine.toml"
    file.write_text("[train]\nupdates = 50\n")
    assert resolve(file, {"backbone": "ViT-B-16"}).train.updates == 50
    assert resolve(file, {"train": {"epochs": 2}}).train.updates is None
    usual = TrainSettings().epochs  # epochs that do not count are no part of a run's id
    assert {resolve(None, {"method": {"name": name}}).train.epochs for name in method_names()} == {usual}


def test_one_budget_for_every_method_that_takes_steps() -> None:
    trains = {name: resolve(None, {"method": {"name": name}}).train for name in method_names() if name not in STEPLESS}
    assert trains.pop("cocoop").batch_size == 4  # each of its images has a text of its own with every class
    assert {(train.updates, train.batch_size) for train in trains.values()} == {(600, 16)}


def test_every_setting_can_be_given_as_text() -> None:
    """As the command line gives them: each default, written out, is read as itself."""
    recipe = resolve(None, {"backbone": "ViT-B-16"})
    given = {key: str(value) for key, value in recipe.method_settings.items()}
    train = {key: str(value) for key, value in recipe.train.plain().items()}
    top = {key: str(getattr(recipe, key)) for key in ("data", "shots", "classes", "seed", "split_seed", "template")}
    again = resolve(None, {**top, "backbone": "ViT-B-16", "method": given, "train": train})
    assert again == recipe


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("shot = 4", "did you mean 'shots'"),
        ("[train]\nepoch = 3", "did you mean 'epochs'"),
        ("[method]\nrankk = 3", "did you mean 'rank'"),
        ('[method]\nname = "rmadaptor"', "did you mean 'rmadapter'"),
        ('[method]\nimage_blocks = "5"', "image_blocks is not valid: write the first and the last block, such as 5-12"),
        ("shots = 0", "shots is not valid"),
        ("train = 3", "'train' is a table"),
        ('classes = "novel"', "classes is not valid"),
        ("not toml", "is not a TOML file"),
    ],
)
def test_mistakes_are_named(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(content)
    with pytest.raises(SettingError, match=message) as raised:
        resolve(file, {"data": "pictograms/food"})
    assert "mine.toml" in str(raised.value)


def test_a_mistake_in_what_is_changed_does_not_blame_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("shots = 4")
    with pytest.raises(SettingError, match=r"^a recipe has no key 'shot'"):
        resolve(tmp_path / "mine.toml", {"shot": 4})


def test_unknown_recipes() -> None:
    with pytest.raises(SettingError, match="did you mean 'rmadapter/pictograms'"):
        resolve("rmadapter/pictogram", {})


def test_every_shipped_recipe_says_what_it_is() -> None:
    for name in recipes.names():
        text = (recipes.FOLDER / f"{name.split('/')[0]}.toml").read_text(encoding="utf-8")
        assert text.startswith("# ") and "rmadapter " in text.split("\n\n")[0], "a header with its command"


def test_quoted_scores_are_whole_and_their_mean_is_harmonic() -> None:
    found = {name: recipes.published(name, "base-to-novel") for name in method_names()}
    assert {name for name, quoted in found.items() if not quoted} == {
        "clip_adapter",
        "linear_probe",
        "multimodal_adapter",
        "transmiter",
    }
    for name, quoted in found.items():
        if quoted:
            assert list(quoted) == ["base", "novel", "hm", "setting", "differs"], name
            printed = "80.78" if name == "rmadapter" else f"{quoted['hm']:.2f}"  # the paper's own are at odds
            assert harmonic_mean(quoted["base"], quoted["novel"]) == pytest.approx(float(printed), abs=0.015)
