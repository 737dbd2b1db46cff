"""CLIP's generic templates, sentences from a file, and frozen text features of other prompts than a method's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from rmadapter.backbones import Backbone
from rmadapter.data.task import class_key
from rmadapter.errors import DataError, nearest
from rmadapter.method import begin, finish_text, prompts, widen

TEXTS = 256
"""That are encoded at once."""
FORM = 'write {"class name": ["sentence", …], …}, as many sentences for each class'

# The first 60 of OpenAI's 80, in their order: those that PromptSRC teaches with.
TEMPLATES = (
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
)


def generic(count: int, own: str) -> tuple[str, ...]:
    """The first ``count`` templates; for 0 the template ``own`` alone."""
    return TEMPLATES[:count] or (own,)


@torch.no_grad()
def encode(backbone: Backbone, texts: Sequence[str]) -> Tensor:
    """Frozen features (n, d) of whole texts, not normalised."""
    tower = backbone.tower("text")
    found = []
    for first in range(0, len(texts), TEXTS):
        ids = backbone.tokenize(texts[first : first + TEXTS])
        found.append(widen(finish_text(tower, begin(tower, ids, tower.depth), None)[0]))
    return torch.cat(found)


def average(backbone: Backbone, classes: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Frozen features (c, d), averaged over templates as they are, without norm, and L2-normalised then."""
    each = [encode(backbone, prompts(classes, template)) for template in templates]
    return F.normalize(torch.stack(each).mean(dim=0), dim=-1)


def sentences(file: Path, classes: Sequence[str]) -> list[list[str]]:
    """What a JSON file says of classes: the first sentence of each, the second of each, and so on.

    Names are compared by ``class_key``. Raises DataError naming a class that is missing or whose
    sentences are not as many as those of the first.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is missing or not JSON", got=str(error), remedy=FORM) from error
    if not isinstance(content, dict):
        raise DataError(f"{file} does not hold an object", remedy=FORM)
    known = {class_key(name): said for name, said in content.items()}
    about: list[list[str]] = []
    for name in classes:
        if class_key(name) not in known:
            raise DataError(f"{file} says nothing of class {name!r}", remedy=nearest(class_key(name), known) or FORM)
        said = known[class_key(name)]
        if not isinstance(said, list) or not said or not all(isinstance(sentence, str) for sentence in said):
            raise DataError(f"{file}: class {name!r} has no list of sentences", got=repr(said)[:80], remedy=FORM)
        if about and len(said) != len(about[0]):
            raise DataError(
                f"{file}: every class needs the same number of sentences, since one index is drawn for all",
                got=f"{len(said)} for {name!r}, {len(about[0])} for {classes[0]!r}",
            )
        about.append(said)
    return [list(each) for each in zip(*about, strict=True)]
