"""The curve that is watched: zero-shot accuracy on the validation scenes of the ten themes, never on their tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor
from towers import image_features, text_features

from rmadapter.backbones.clip import CLIP
from rmadapter.backbones.preprocess import Preprocess
from rmadapter.data import pictograms

IMAGES = 3
"""Validation scenes a class that are looked at: one a style."""
BATCH = 250


class ZeroShot:
    """Scenes drawn once, and the model's accuracy on them."""

    def __init__(self, preprocess: Preprocess, tokenize: Callable[[list[str]], Tensor]) -> None:
        self.preprocess = preprocess
        self.tasks: list[tuple[Tensor, Tensor, Tensor, list[str]]] = []
        for name in (name for name in pictograms.task_names() if name != pictograms.WIDE):
            task = pictograms.load(name)
            count = len(task.val) // len(task.classes)
            items = [item for place, item in enumerate(task.val) if place % count < IMAGES]
            pixels = torch.stack([preprocess(item.picture.open()) for item in items])
            styles = [item.picture.style for item in items]  # type: ignore[attr-defined]
            ids = tokenize([task.template.format(label) for label in task.classes])
            self.tasks.append((pixels, torch.tensor([item.label for item in items]), ids, styles))

    @torch.no_grad()
    def __call__(self, clip: CLIP) -> dict[str, float]:
        """Percent, mean over the themes, of all scenes (``all``) and of those of each style."""
        scores: dict[str, list[float]] = defaultdict(list)
        for pixels, labels, ids, styles in self.tasks:
            text = text_features(clip, ids)
            found = [image_features(clip, self.preprocess.normalise(part), 1.0, None) for part in pixels.split(BATCH)]
            right = ((torch.cat(found) @ text.T).argmax(dim=1) == labels).double()
            scores["all"].append(right.mean().item())
            for style in pictograms.FLUENT:
                of_style = torch.tensor([name == style for name in styles])
                scores[style].append(right[of_style].mean().item())
        return {name: round(100 * sum(values) / len(values), 1) for name, values in scores.items()}
