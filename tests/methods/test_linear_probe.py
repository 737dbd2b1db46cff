"""The linear probe against scikit-learn itself, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

import rmadapter as ra
from rmadapter.backbones import Backbone
from rmadapter.data import Task
from rmadapter.errors import DataError, UserError
from rmadapter.methods.linear_probe import LinearProbe
from rmadapter.solve import frozen_features


@pytest.mark.parametrize("count", [2, 6])
def test_probabilities_are_scikit_learns(pictoclip: Backbone, few: Task, count: int) -> None:
    task = few._only(range(count)).shots(4, seed=1)
    method = LinearProbe(pictoclip, strength=10)
    terms = ra.fit(method, task, show_progress=False).terms
    x = frozen_features(pictoclip, task.train).numpy()
    model = LogisticRegression(C=10, max_iter=1000).fit(x, task.train.labels)
    items = task.val.items[:5]
    expected = model.predict_proba(frozen_features(pictoclip, dataclasses.replace(task.val, items=items)).numpy())
    found = method.predictor(task.classes).probabilities([item.picture.open() for item in items])
    assert np.allclose(found.numpy(), expected, atol=1e-5)
    own = model.predict_proba(x)[np.arange(len(x)), task.train.labels]
    assert terms == {"ce": pytest.approx(-np.log(own).mean(), rel=1e-4), "strength": 10}


def test_the_strength_is_chosen_on_validation_items(pictoclip: Backbone, animals: Task, tmp_path: Path) -> None:
    task = animals._only(range(12)).shots(8, seed=1)
    method = LinearProbe(pictoclip)
    terms = ra.fit(method, task, tmp_path, show_progress=False).terms
    x, val = (frozen_features(pictoclip, split).numpy() for split in (task.train, task.val))
    models = {c: LogisticRegression(C=c, max_iter=1000).fit(x, task.train.labels) for c in (1.0, 10.0, 100.0, 1000.0)}
    scores = {c: 100 * model.score(val, task.val.labels) for c, model in models.items()}
    assert len(set(scores.values())) > 1
    assert terms["strength"] == max(scores, key=lambda c: scores[c])
    assert terms["val_accuracy"] == pytest.approx(max(scores.values()))
    assert ra.evaluate(method.predictor(task.classes), task.val).accuracy == pytest.approx(terms["val_accuracy"])
    assert json.loads((tmp_path / "steps.jsonl").read_text()) == terms
    assert ra.load(tmp_path).trained() == 12 * (pictoclip.shape.joint + 1)


def test_without_validation_items_it_is_one_with_a_note(pictoclip: Backbone, few: Task) -> None:
    task = dataclasses.replace(few.shots(2, seed=1), val_items=())
    with pytest.warns(UserWarning, match="no validation items"):
        assert ra.fit(LinearProbe(pictoclip), task, show_progress=False).terms["strength"] == 1
    assert ra.fit(LinearProbe(pictoclip, strength=3), task, show_progress=False).terms["strength"] == 3


def test_classes_without_images(pictoclip: Backbone, few: Task) -> None:
    items = tuple(item for item in few.train_items if item.label != 2)
    with pytest.raises(DataError, match=rf"every class.*\n.*6 classes, without images: {few.classes[2]}"):
        ra.fit(LinearProbe(pictoclip), dataclasses.replace(few, train_items=items), show_progress=False)
    with pytest.raises(DataError, match="two classes at least"):
        ra.fit(LinearProbe(pictoclip), few._only([0]), show_progress=False)


def test_scikit_learn_is_needed_to_fit_and_not_to_load(
    pictoclip: Backbone, few: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ra.fit(LinearProbe(pictoclip, strength=1), few.shots(2, seed=1), tmp_path, show_progress=False)
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(UserError, match="pip install scikit-learn"):
        ra.fit(LinearProbe(pictoclip), few.shots(2, seed=1), show_progress=False)
    assert ra.load(tmp_path).predictor(few.classes[:2]).classes == few.classes[:2]


def test_trained_again_on_other_classes(pictoclip: Backbone, few: Task) -> None:
    method = LinearProbe(pictoclip, strength=1)
    for task in (few, few._only([1, 2, 3])):
        ra.fit(method, task.shots(2, seed=1), show_progress=False)
        assert method.weight.shape == (len(task.classes), pictoclip.shape.joint)
        assert method.predictor(task.classes).classes == task.classes


def test_two_classes_of_one_name_keep_their_own_weights(pictoclip: Backbone, few: Task) -> None:
    """ImageNet has "missile" and "sunglasses" twice: a prompt cannot tell such classes apart, and a probe can."""
    names = ("missile", *few.classes[1:3], "missile", *few.classes[4:])
    method = LinearProbe(pictoclip, strength=100)
    ra.fit(method, dataclasses.replace(few.shots(2, seed=1), classes=names), show_progress=False)
    pixels = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8)
    every = method.predictor(names).logits(pixels)
    image = method.frozen("image", method.begin("image", pictoclip.preprocess.normalise(pixels)))
    assert (every - F.linear(image, method.weight, method.bias)).abs().max() < 1e-5
    assert torch.equal(method.predictor(names[:4]).logits(pixels), every[:, :4])
