"""Method, the three seams, and the frame that runs a backbone through them.

Shape letters: ``b`` images, ``c`` classes, ``l`` rows (tokens), ``w`` width, ``d`` joint dimension.

A method touches a tower at one of three seams and is the identity at each until it overrides it:

* ``tokens(tower, x)``: the rows that enter (text: before positions are added; images: before the first layer norm).
* ``before(tower, i, x)`` and ``beside(tower, i, u)``: the rows that go into block i; and what is added to its output,
  computed from the block's normalised input u = ln_1(x).
* ``head(image, text)``: pooled features to normalised features and logits.

The frame, not the method, runs the blocks. So it can do less work with the same result: text is cut behind the last row
that is read (exact under causal attention), blocks below the first one that a method touches run without a gradient
(for text once per class list), and the last block computes only the row that is pooled.
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
from rmadapter.backbones.clip import TOWERS, Tower, TowerName, take
from rmadapter.data.task import Split, check_class_names, check_template
from rmadapter.settings import Settings

if TYPE_CHECKING:
    from rmadapter.predictor import Predictor


class Features(NamedTuple):
    """What the head makes of the pooled features."""

    image: Tensor
    """(b, d), L2-normalised."""
    text: Tensor
    """(c, d), L2-normalised; (b, c, d) where a head makes it depend on the image."""
    logits: Tensor
    """(b, c)."""


@dataclass(frozen=True)
class Output:
    """A forward pass."""

    features: Features
    local: dict[TowerName, Tensor]
    """Sum over blocks of the local losses of a tower, each the mean over its rows; training only."""


class Teacher(NamedTuple):
    """Features of the frozen backbone for the same images and classes, L2-normalised: (b, d) and (c, d)."""

    image: Tensor
    text: Tensor


@dataclass(frozen=True)
class Rows:
    """Rows on their way through a tower: frozen work is done up to block ``at``, the rest is still to do.

    ``at`` is -1 before the ``tokens`` seam. Behind the last block only the pooled row is kept.
    """

    x: Tensor
    """(b, l, w)."""
    pool: Tensor
    """(b,) the row that is pooled: 0 for images, the end token for text."""
    at: int
    valid: Tensor | None = None
    """(b, l) True for the rows that count in a local loss; None: all do."""

    def __len__(self) -> int:
        return len(self.x)


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

    def __init__(self, backbone: Backbone, *, seed: int = 1, **settings: Any) -> None:
        super().__init__()
        self._backbone = (backbone,)  # in a tuple, so that torch does not register it as a submodule
        given = {**recipes.defaults(self.name, backbone.variant, "method"), **settings}
        self.settings = self.Settings.parse(given, f"method {self.name}")
        self.seed = seed
        self.template = backbone.template
        self.temperature = 1.0
        """What logits of the trained class list are divided by before the softmax; ``evaluate --temperature`` fits one."""
        self.classes: tuple[str, ...] = ()
        """What it is trained on; ``start`` sets it."""
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

    def tokens(self, tower: TowerName, x: Tensor) -> Tensor:
        """Seam 1: rows (b, l, w) that enter the tower."""
        return x

    def before(self, tower: TowerName, i: int, x: Tensor) -> Tensor:
        """Seam 2a: rows (b, l, w) that go into block ``i``."""
        return x

    def beside(self, tower: TowerName, i: int, u: Tensor) -> Tensor | None:
        """Seam 2b: what is added to block ``i``'s output, from its normalised input; the last block has one row."""
        return None

    def local(self, tower: TowerName, i: int, x: Tensor, u: Tensor) -> Tensor | None:
        """A loss of block ``i`` alone, one value a row (b, l), from all rows of its input x and u = ln_1(x).

        Called in training only. The frame takes the mean over valid rows and sums over blocks.
        """
        return None

    def head(self, image: Tensor, text: Tensor) -> Features:
        """Seam 3: pooled features (b, d) and (c, d), not normalised, to normalised ones and logits."""
        image, text = F.normalize(widen(image), dim=-1), F.normalize(widen(text), dim=-1)
        return Features(image, text, self.backbone.clip.logit_scale.exp() * image @ text.T)

    def terms(self, output: Output, labels: Tensor, teacher: Teacher | None) -> dict[str, Tensor]:
        """Named losses whose sum is minimised; ``teacher`` is there where ``needs_teacher`` says so."""
        return {"ce": F.cross_entropy(output.features.logits, labels)}

    def solve(self, train: Split, val: Split, features: Callable[[Split], Tensor]) -> dict[str, float]:
        """Fit what trains at once, where ``solved`` says so; returns named values for the log, among them ``ce``.

        Args:
            val: settings may be chosen on it.
            features: of the frozen image tower for a split's items, without augmentation: (n, d), L2-normalised.
        """
        raise NotImplementedError

    def start(self, classes: tuple[str, ...], template: str) -> None:
        """Take in a task, before training and before a checkpoint or an adapter is read.

        What a class-bound method trains is created here, and anew when the classes change.
        """
        changed = classes != self.classes
        self.classes, self.template, self.temperature = classes, template, 1.0
        if self.class_bound and changed:
            self._draw()

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
        touched = self.touches(tower)
        depth = self.backbone.tower(tower).depth
        until = depth if not touched else -1 if touched.start == 0 else touched.start
        return begin(self.backbone.tower(tower), inputs, until, cut=not self.whole_text)

    def begin_text(self, classes: Sequence[str], template: str | None = None) -> Rows:
        """``begin`` for the prompts of a class list."""
        return self.begin("text", self.backbone.tokenize(prompts(classes, template or self.template)))

    def forward(self, image: Rows, text: Rows) -> Output:
        """Both towers and the head: what ``begin`` returned for images and for text to features and logits."""
        local: dict[TowerName, Tensor] = {}
        pooled: dict[TowerName, Tensor] = {}
        for name, rows in zip(TOWERS, (image, text), strict=True):
            pooled[name], loss = finish(self.backbone.tower(name), rows, self)
            if loss is not None:
                local[name] = loss
        return Output(self.head(pooled["image"], pooled["text"]), local)

    @torch.no_grad()
    def frozen(self, tower: TowerName, rows: Rows) -> Tensor:
        """The frozen backbone's feature (b, d), L2-normalised, sharing the work that ``begin`` has done."""
        return F.normalize(widen(finish(self.backbone.tower(tower), rows, None)[0]), dim=-1)

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


def widen(x: Tensor) -> Tensor:
    """At least float32, where half precision would lose or overflow: norms, sums, losses."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@torch.no_grad()
def begin(tower: Tower, inputs: Tensor, until: int, cut: bool = True) -> Rows:
    """Inputs to the rows that enter block ``until``; -1: before the tokens seam, depth: only the pooled row is left."""
    valid = None
    if tower.name == "text":
        pool = inputs.argmax(dim=-1)  # the end token has the largest id
        if cut:
            inputs = inputs[:, : int(pool.max()) + 1]
            valid = torch.arange(inputs.shape[1], device=inputs.device) <= pool[:, None]
    else:
        pool = torch.zeros(len(inputs), dtype=torch.long, device=inputs.device)
    x = tower.rows(inputs)
    if until >= 0:
        x = tower.enter(x)
        for i in range(min(until, tower.depth)):
            x = _block(tower, i, x, pool)
    return Rows(x, pool, until, valid)


def finish(tower: Tower, rows: Rows, method: Method | None) -> tuple[Tensor, Tensor | None]:
    """The rest of a tower: features (b, d), not normalised, and the sum of local losses (in training, if any).

    Args:
        method: whose seams act; None runs the frozen backbone.
    """
    x, at = rows.x, rows.at
    name = tower.name
    touched = method.touches(name) if method else range(0)
    losses: list[Tensor] = []
    if at < 0:
        x, at = tower.enter(method.tokens(name, x) if method and 0 in touched else x), 0
    for i in range(at, tower.depth):
        if method is None or i not in touched:
            x = _block(tower, i, x, rows.pool)
            continue
        x = method.before(name, i, x)
        u = tower.block(i).ln_1(x)
        if method.training:
            loss = method.local(name, i, x, u)
            if loss is not None:
                losses.append(_mean(loss, rows.valid))
        last = i == tower.depth - 1
        added = method.beside(name, i, take(u, rows.pool) if last else u)
        x = tower.block(i).one_row(x, u, rows.pool) if last else tower.block(i)(x, u)
        if added is not None:
            x = x + added
    return tower.pool(x[:, 0]), torch.stack(losses).sum() if losses else None


def _block(tower: Tower, i: int, x: Tensor, pool: Tensor) -> Tensor:
    """A block without seams; the last one computes only the pooled row."""
    block = tower.block(i)
    u = block.ln_1(x)
    return block.one_row(x, u, pool) if i == tower.depth - 1 else block(x, u)


def _mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of values (b, l) over valid rows, in float32."""
    values = widen(values)
    if valid is None:
        return values.mean()
    return (values * valid).sum() / valid.sum()
