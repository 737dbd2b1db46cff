"""Recipe: everything that decides a run, typed; from a TOML file, from flags, or both."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt

from rmadapter import recipes
from rmadapter.backbones import recipe_variant
from rmadapter.errors import SettingError, naming, nearest, unknown
from rmadapter.methods import method_class, method_names
from rmadapter.settings import Seed, Settings
from rmadapter.train import TrainSettings, train_settings

TABLES = ("method", "train")


class Recipe(Settings):
    """What to train, on what, with what."""

    data: str = "pictograms/animals"
    """A task of rmadapter list tasks (public/… with --root), or your own: a folder, a split .json, a .csv or .jsonl."""
    backbone: str = "pictoclip-s"
    """pictoclip-s or pictoclip-m, an open_clip model such as ViT-B-16, hf-hub:owner/model, or a local folder."""
    pretrained: str | None = "default"
    """Weights: a tag of open_clip, a .safetensors file, none (random); default: openai, or the backbone's own."""
    shots: PositiveInt = 16
    """Training images a class."""
    classes: Literal["base", "all"] = "all"
    """Train on all classes, or on the first half (base), to see what the other half (novel) loses."""
    seed: Seed = 1
    """Of the shots, the initial values, the batch order and the augmentation."""
    split_seed: Seed = 1
    """Of the 50/20/30 split of data without a split of their own."""
    test_on: Literal["test", "val"] = "test"
    """What is scored: test items, or val: validation items in their place, to choose settings on."""
    skip_broken: bool = False
    """Leave out images that cannot be read, and list them; otherwise the first one is an error."""
    template: str | None = None
    """The prompt with {} for the class name; none: the task's own."""
    method: str = "rmadapter"
    """A method's name: rmadapter list methods."""
    method_settings: dict[str, Any] = {}
    """The method's settings, all of them once the recipe is resolved."""
    train: TrainSettings = TrainSettings()
    """Optimiser, schedule and batches."""


def resolve(recipe: str | Path | None, changes: Mapping[str, Any], protocol: str = "") -> Recipe:
    """A recipe with every default filled in.

    Precedence, low to high: defaults, the method's shipped recipe for the backbone, ``recipe``, ``changes``.

    Args:
        recipe: a shipped one by name (``rmadapter/pictograms``), a TOML file, or None.
        changes: top-level keys; the tables ``method`` (with ``name``) and ``train`` as mappings.
        protocol: for which the method's shipped recipe may have settings of its own, as for data and shots.

    Raises:
        SettingError: for an unknown key, with the nearest known one; or a value that is not allowed.
    """
    if recipe is None or str(recipe) in recipes.names():
        # A shipped recipe that is named stands alone; otherwise the section that suits the backbone is below the rest.
        return _resolved({} if recipe is None else read(recipe), changes, protocol, alone=recipe is not None)
    content = read(recipe)
    with naming(recipe):
        _resolved(content, {}, protocol)
    return _resolved(content, changes, protocol)


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with some settings changed, as ``resolve`` takes them. Of all others it says what it said: settings that
    came after it was written stay out of it, and of another method it has the name alone.
    """
    settings = _table(changes, "method")
    name, method = str(settings.pop("name", recipe.method)), dict(recipe.method_settings)
    if name == recipe.method:
        parsed = method_class(name).Settings.parse({**method, **settings}, f"method {name}").plain()
        method = {key: parsed[key] for key in {**method, **settings}}
    top = {key: value for key, value in changes.items() if key not in TABLES}
    train = recipes.over(recipe.train.plain(), _table(changes, "train"))
    return Recipe.parse({**recipe.plain(), **top, "method": name, "method_settings": method, "train": train}, "recipe")


def _resolved(
    content: Mapping[str, Any], changes: Mapping[str, Any], protocol: str = "", alone: bool = False
) -> Recipe:
    """A recipe's content with changes. ``alone``: nothing of the method's section for the backbone is below it."""
    given = {key: value for key, value in {**content, **changes}.items() if key not in TABLES}
    method = {**_table(content, "method"), **_table(changes, "method")}
    name = str(method.pop("name", Recipe.model_fields["method"].default))
    if name not in method_names():
        raise unknown("method", name, method_names())
    backbone = str(given.get("backbone", Recipe.model_fields["backbone"].default))
    variant = "" if alone else recipe_variant(backbone)
    about = {key: given.get(key, Recipe.model_fields[key].default) for key in ("data", "shots", "backbone")}
    case = recipes.Case(protocol, **about)
    method = {**recipes.defaults(name, variant, "method", case), **method}
    train = recipes.over(_table(content, "train"), _table(changes, "train"))
    seed = given.get("seed", Recipe.model_fields["seed"].default)
    known = [key for key in Recipe.model_fields if key not in ("method_settings", *TABLES)]
    for key in given:
        if key not in known:
            raise SettingError(
                f"a recipe has no key {key!r}",
                allowed=", ".join([*known, "[method]", "[train]"]),
                remedy=nearest(key, [*known, *TABLES]),
            )
    return Recipe.parse(
        {
            **given,
            "method": name,
            "method_settings": method_class(name).Settings.parse(method, f"method {name}").plain(),
            "train": train_settings(name, variant, {"seed": seed, **train}, case),
        },
        "recipe",
    )


def read(recipe: str | Path) -> dict[str, Any]:
    """The content of a shipped recipe or of a TOML file. Raises SettingError when there is none, or it is not TOML."""
    if str(recipe) in recipes.names():
        name, _, _ = str(recipe).partition("/")
        content = recipes.read(str(recipe))
        return {**content, "method": {"name": name, **content.get("method", {})}}
    file = Path(recipe)
    if not file.is_file():
        raise SettingError(
            f"there is no recipe {str(recipe)!r}",
            allowed="a TOML file, or one of " + ", ".join(recipes.names()),
            remedy=nearest(str(recipe), recipes.names()),
        )
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(f"{file} is not a TOML file", got=str(error)) from error


def _table(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key, {})
    if not isinstance(value, Mapping):
        raise SettingError(f"{key!r} is a table", got=repr(value), remedy=f"write [{key}] with settings below it")
    return dict(value)
