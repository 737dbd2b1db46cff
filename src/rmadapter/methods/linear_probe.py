"""Linear probe: logistic regression on the frozen image features. The text tower is not used.

Source: Radford et al., ICML 2021, as CoOp (Zhou et al., IJCV 2022) and others compare with it in the few-shot setting.

With normalised frozen features f (n, d) of the training images and their labels y, and strength C:

    W, b = argmin  |W|^2 / 2 + C Σ_n cross-entropy(W f_n + b, y_n)          W (c, d), b (c,)
    logits = W f + b                                                         (b, c)

by scikit-learn's L-BFGS, to convergence: no steps, no rate, no seed, no augmentation. W and b belong to the trained
classes, so it can choose among these only, and has nothing to say about novel ones. Of two classes, scikit-learn fits
the difference of the logits alone; half of it with either sign gives the same probabilities.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor, nn

from rmadapter.data.task import Split
from rmadapter.errors import DataError, UserError
from rmadapter.method import Features, Method
from rmadapter.settings import Settings

STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
"""Among which the validation items choose."""
ITERATIONS = 1000
"""Of the solver, at most."""


class LinearProbeSettings(Settings):
    """One question: how hard to fit."""

    strength: PositiveFloat | None = None
    """C: weight of the images against the penalty. None: of 1, 10, 100 and 1000, the best on validation items."""


class LinearProbe(Method):
    """See the module's text. Settings: ``LinearProbeSettings``."""

    name = "linear_probe"
    source = "Radford et al., ICML 2021"
    Settings = LinearProbeSettings
    settings: LinearProbeSettings
    class_bound = True
    solved = True

    def build(self) -> None:
        classes = len(self.classes)
        self.weight = nn.Parameter(torch.zeros(classes, self.backbone.shape.joint))
        self.bias = nn.Parameter(torch.zeros(classes))

    def head(self, image: Tensor, text: Tensor) -> Features:
        frozen = super().head(image, text)
        return frozen._replace(logits=F.linear(frozen.image, self.weight, self.bias))

    def solve(self, train: Split, val: Split, features: Callable[[Split], Tensor]) -> dict[str, float]:
        regression = _logistic_regression()
        _check(train)
        strengths = self._candidates(val)
        x, y = features(train), train.labels
        models = [regression(C=strength, max_iter=ITERATIONS).fit(x.numpy(), y) for strength in strengths]
        chosen, found = 0, {}
        if len(models) > 1:
            seen = features(val).numpy()
            accuracies = [100 * float(model.score(seen, val.labels)) for model in models]
            chosen = accuracies.index(max(accuracies))
            found = {"val_accuracy": accuracies[chosen]}
        weight, bias = (torch.from_numpy(value) for value in (models[chosen].coef_, models[chosen].intercept_))
        if len(train.classes) == 2:
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        with torch.no_grad():
            self.weight.copy_(weight)
            self.bias.copy_(bias)
        ce = F.cross_entropy(F.linear(x, weight, bias), torch.tensor(y))
        return {"ce": float(ce), "strength": strengths[chosen], **found}

    def _candidates(self, val: Split) -> tuple[float, ...]:
        if self.settings.strength is not None:
            return (self.settings.strength,)
        if len(val):
            return STRENGTHS
        warnings.warn(f"no validation items choose the probe's strength: it is {STRENGTHS[0]:g}", stacklevel=2)
        return STRENGTHS[:1]


def _check(train: Split) -> None:
    seen = set(train.labels)
    without = [name for label, name in enumerate(train.classes) if label not in seen]
    if without or len(train.classes) == 1:
        lacking = f", without images: {', '.join(without)}" if without else ""
        raise DataError(
            "a linear probe needs training images of every class, and two classes at least",
            got=f"{len(train.classes)} classes{lacking}",
        )


def _logistic_regression() -> Any:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise UserError(
            "a linear probe is fitted by scikit-learn, which is not installed",
            got=str(error),
            remedy="pip install '.[probe]' in the clone, or pip install scikit-learn",
        ) from error
    return LogisticRegression
