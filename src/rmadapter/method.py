"""Method and the three seams at which it acts; frame.py runs a backbone through them.

Shape letters: ``b`` images, ``c`` classes, ``l`` rows (tokens), ``w`` width, ``d`` joint dimension.

A method touches a tower at one of three seams and is the identity at each until it overrides it:

* ``tokens(tower, x, image)``: the rows that enter (text: before positions are added; images: before the first layer
  norm).
* ``before(tower, i, x)`` and ``beside(tower, i, u)``: the rows that go into block i; and what is added to its output,
  computed from the block's normalised input u = ln_1(x).
* ``head(image, text)``: pooled features to normalised features and logits.

Rows of images come as one sequence an image. Those of text come as one sequence for all prompts (where text depends on
the image, one an image): first the rows that all prompts begin with, then each prompt's own, one prompt after another.
So a seam may write rows at the beginning, which are the same for all classes, and must treat all others alike.

The frame (``frame.py``), not the method, runs the blocks. So it can do less work with the same result: rows that
prompts share are computed once, and those behind the last row that is read not at all. Blocks below the first one that
a method touches run without a gradient, and so does that one where the method only adds to its output: for text once
per class list, for images that are not augmented once a run. And the last block computes only the rows that are pooled.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmadapter import recipes
from rmadapter.backbones import Backbone
from rmadapter.backbones.clip import TowerName
from rmadapter.data.task import Split, check_class_names, check_template
from rmadapter.frame import Pooled, Rows, begin, finish, finish_text, similarity, widen
from rmadapter.settings import Settings

if TYPE_CHECKING:
    from rmadapter.predictor import Predictor

__all__ = ["Features", "Method", "Output", "Rows", "Teacher", "begin", "finish_text", "prompts", "similarity", "widen"]


class Features(NamedTuple):
    """What the head makes of the pooled features."""

    image: Tensor
    """(b, d), L2-normalised."""
    text: Tensor
    """(c, d), L2-normalised; (b, c, d) where text depends on the image."""
    logits: Tensor
    """(b, c)."""


@dataclass(frozen=True)
class Output:
    """A forward pass."""

    features: Features
    local: dict[TowerName, Tensor]
    """Sum over blocks of the local losses of a tower, each the mean over its rows; training only."""


class Teacher(NamedTuple):
    """What a training step learns from beside the labels."""

    image: Tensor
    """(b, d), L2-normalised: the frozen backbone's features of the same images, in their last view."""
    text: Tensor
    """What ``teacher_text`` gave."""
    step: int = 0
    """Number of the step, from 0: with the seed it decides what is drawn."""


class Method(nn.Module):
    """A way of adapting a frozen backbone. It owns all that trains; the backbone is no submodule, and never written to.

    Args:
        backbone: the frozen CLIP.
        settings: changes to the method's ``Settings``, by name; what is left out comes from the method's shipped recipe
            for this backbone, or else is the default. An unknown name is a SettingError.
        seed: of the initial values of what trains.
    """

    name: ClassVar[str]
    """The name in commands, recipes and files: the file's name."""
    source: ClassVar[str]
    """Authors, venue, year."""
    Settings: ClassVar[type[Settings]] = Settings
    class_bound: ClassVar[bool] = False
    """True: what trains belongs to the trained classes; logits are theirs, and a predictor chooses among them."""
    solved: ClassVar[bool] = False
    """True: what trains is fitted at once, by ``solve``, and no step is taken."""

    whole_text: bool = False
    """True: text rows behind the end token take part, so the frame must not cut them."""
    needs_teacher: bool = False
    """True: ``terms`` wants the frozen backbone's features."""
    conditional_text: bool = False
    """True: text depends on the image, so each has its own text features; such text has no local losses."""
    local_detached: bool = False
    """True: local losses reach no other block, since ``local`` detaches its rows; the frame then keeps none of them."""
    whole_batch: bool = False
    """True: terms compare images with each other. Else they are means over images, each of which may come by itself."""
    views: int = 1
    """Augmented views of an image in a training step; the method sees the first, the teacher the last."""

    def __init__(self, backbone: Backbone, *, seed: int = 1, **settings: Any) -> None:
        super().__init__()
        self._backbone = (backbone,)  # in a tuple, so that torch does not register it as a submodule
        case = recipes.Case(backbone=backbone.name)
        given = {**recipes.defaults(self.name, backbone.variant, "method", case), **settings}
        self.settings = self.Settings.parse(given, f"method {self.name}")
        self.seed = seed
        self.template = backbone.template
        self.temperature = 1.0
        """What logits of the trained class list are divided by before the softmax."""
        self.classes: tuple[str, ...] = ()
        """What it is trained on; ``start`` sets it."""
        self.teacher_template: str | None = None
        """What a hand-written teacher reads where that is not the template (``Task.teacher_template``), in training."""
        if not self.class_bound:
            self._draw()

    @property
    def backbone(self) -> Backbone:
        """The frozen CLIP."""
        return self._backbone[0]

    # What a method overrides -----------------------------------------------------------------------------------

    def build(self) -> None:
        """Create what trains. The global random state is seeded around this call.

        For a class-bound method this is when its classes are known (``self.classes``), not before.
        """

    def touches(self, tower: TowerName) -> range:
        """Blocks (from 0) at which the method's seams are not the identity; 0 includes the rows that enter.

        Empty: the tower is left alone, and its features do not change in training.
        """
        return range(0)

    def tokens(self, tower: TowerName, x: Tensor, image: Tensor | None = None) -> Tensor:
        """Seam 1: rows (b, l, w) that enter the tower.

        Args:
            image: with ``conditional_text``, the pooled feature (b, d), not normalised, of each sequence's image.
        """
        return x

    def before(self, tower: TowerName, i: int, x: Tensor) -> Tensor:
        """Seam 2a: rows (b, l, w) that go into block ``i``."""
        return x

    def beside(self, tower: TowerName, i: int, u: Tensor) -> Tensor | None:
        """Seam 2b: what is added to block ``i``'s output, from its normalised input; of the last block, pooled rows."""
        return None

    def local(self, tower: TowerName, i: int, x: Tensor, u: Tensor) -> Tensor | None:
        """A loss of block ``i`` alone, one value a row (b, l), from all rows of its input x and u = ln_1(x).

        Called in training only. The frame takes the mean over rows, counts those that prompts share for each of them,
        and sums over blocks.
        """
        return None

    def head(self, image: Tensor, text: Tensor) -> Features:
        """Seam 3: pooled features (b, d) and (c, d) or (b, c, d), not normalised, to normalised ones and logits."""
        image, text = F.normalize(widen(image), dim=-1), F.normalize(widen(text), dim=-1)
        return Features(image, text, similarity(self.backbone.clip.logit_scale.exp() * image, text))

    def terms(self, output: Output, labels: Tensor, teacher: Teacher | None) -> dict[str, Tensor]:
        """Named losses whose sum is minimised; ``teacher`` is there where ``needs_teacher`` says so.

        Each is a mean over images, or of text alone: a batch may come in parts (``gradients``). See ``whole_batch``.
        """
        return {"ce": F.cross_entropy(output.features.logits, labels)}

    def solve(self, train: Split, val: Split, features: Callable[[Split], Tensor]) -> dict[str, float]:
        """Fit what trains at once, where ``solved`` says so; returns named values for the log, among them ``ce``.

        Args:
            val: settings may be chosen on it.
            features: of the frozen image tower for a split's items, without augmentation: (n, d), L2-normalised.
        """
        raise NotImplementedError

    def prompt(self, template: str) -> str:
        """The template as the text tower gets it: with placeholders where learned rows need room."""
        return template

    def named(self, classes: Sequence[str]) -> Sequence[str]:
        """The names whose prompts the text tower gets for a class list: the classes, and behind them what else is."""
        return classes

    def start(self, classes: tuple[str, ...], template: str) -> None:
        """Take in a task, before training and before a checkpoint or an adapter is read.

        What a class-bound method trains is created here, and anew when the classes change.
        """
        changed = classes != self.classes
        self.classes, self.template, self.temperature = classes, template, 1.0
        if self.class_bound and changed:
            self._draw()

    def teacher_text(self, classes: Sequence[str], text: Rows) -> Tensor:
        """The teacher's text, once a run: the frozen features (c, d), L2-normalised, of the method's own prompts."""
        return self.frozen("text", text)

    def after_epoch(self, epoch: int, epochs: int) -> None:
        """Called after the last step of epoch ``epoch`` (from 1) of ``epochs``.

        What it gathers belongs in a non-persistent buffer: those are in checkpoints, and not in the adapter.
        """

    # What the frame offers --------------------------------------------------------------------------------------

    def _draw(self) -> None:
        with torch.random.fork_rng(devices=[]):  # what trains is drawn on the CPU, so a seed means the same everywhere
            torch.manual_seed(self.seed)
            self.build()
        self.to(self.backbone.device)

    def begin(self, tower: TowerName, inputs: Tensor) -> Rows:
        """The frozen part of a tower, below the first block that this method touches: no gradient, the same every step.

        Args:
            inputs: normalised pixels (b, 3, s, s) or token ids (c, context).
        """
        until, past = self.frozen_until(tower)
        return begin(self.backbone.tower(tower), inputs, until, cut=not self.whole_text, past=past)

    def frozen_until(self, tower: TowerName) -> tuple[int, bool]:
        """How far ``begin`` goes: the block that its rows enter, -1 before the tokens seam; and whether it runs it."""
        touched = self.touches(tower)
        until = touched.start if touched else self.backbone.tower(tower).depth
        if until == 0 and self._acts("tokens"):
            until = -1
        return until, bool(touched) and not self._acts("before")

    def _acts(self, seam: str) -> bool:
        """Is the seam anything but the identity that it is here?"""
        return getattr(getattr(self, seam), "__func__", None) is not getattr(Method, seam)

    def begin_text(self, classes: Sequence[str], template: str | None = None) -> Rows:
        """``begin`` for the prompts of a class list."""
        template = self.prompt(template or self.template)
        return self.begin("text", self.backbone.tokenize(prompts(self.named(classes), template)))

    def forward(self, image: Rows, text: Rows | Pooled) -> Output:
        """Both towers and the head: what ``begin`` returned for images and for text to features and logits.

        Args:
            text: or what ``finish_text`` made of it.
        """
        images = finish(self.backbone.tower("image"), image, self)
        texts = self.finish_text(text, images.features) if isinstance(text, Rows) else text
        losses: dict[TowerName, Tensor | None] = {"image": images.local, "text": texts.local}
        features = self.head(images.features, texts.features)
        return Output(features, {name: loss for name, loss in losses.items() if loss is not None})

    def finish_text(self, text: Rows, image: Tensor | None = None) -> Pooled:
        """Text features (c, d), or (b, c, d) where they depend on those of images (b, d); and the local loss."""
        return finish_text(self.backbone.tower("text"), text, self, image if self.conditional_text else None)

    @torch.no_grad()
    def frozen(self, tower: TowerName, rows: Rows) -> Tensor:
        """The frozen backbone's features (b, d) or (c, d), L2-normalised, sharing the work that ``begin`` has done."""
        run = finish if tower == "image" else finish_text
        return F.normalize(widen(run(self.backbone.tower(tower), rows, None)[0]), dim=-1)

    def predictor(self, classes: Sequence[str], template: str | None = None) -> Predictor:
        """A classifier for any list of class names, from a copy of this method as it is now.

        Args:
            classes: names, non-empty and unique; they need not have been trained on, unless the method is class-bound.
            template: the prompt; the default is the one trained with, or else the backbone's.
        """
        from rmadapter.predictor import Predictor

        return Predictor(self, classes, template)

    def __deepcopy__(self, memo: dict[int, Any]) -> Method:
        memo[id(self.backbone)] = self.backbone  # frozen, so copies share it
        clone = self.__class__.__new__(self.__class__)
        memo[id(self)] = clone
        for key, value in self.__dict__.items():
            clone.__dict__[key] = copy.deepcopy(value, memo)
        return clone

    def trained(self) -> int:
        """Number of trained parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def at_inference(self) -> int:
        """Number of trained parameters that predictions use."""
        return self.trained()


def prompts(classes: Sequence[str], template: str) -> list[str]:
    """Class names in a template, underscores as spaces. Raises DataError for empty or duplicate names."""
    check_class_names(classes, "class list")
    check_template(template)
    return [template.replace("{}", name.replace("_", " ")) for name in classes]
