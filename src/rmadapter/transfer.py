"""Carry an adaptation over to another backbone: first logits of both as tables, then work on the tables alone.

Source: TransMiter (Park et al., AAAI 2026); the formulas stand in ``methods/transmiter.py``. Of the images
that a teacher was trained on, without augmentation:

    tabulate    source and target (n, D): logits of both frozen backbones; teacher (n, N): the adapted ones
    extract     a net beside the teacher's backbone learns source -> teacher; no labels
    align       its matrix is turned to fit the target's logits, in closed form: no gradient
    supervise   optional (TransMiter+), and all that needs labels: cross-entropy on the target's table

Baselines, from log-probabilities of the frozen target p_t, the frozen source p_s and the teacher p_a, all (b, c):

    EFT         log p_t + log p_a - log p_s        three models for an image (Mitchell et al., ICLR 2024)
    ensemble    (log p_t + log p_a) / 2            two

Shape letters: ``n`` images, ``N`` classes, ``D`` logits with those of auxiliary names.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from rmadapter.backbones import Backbone
from rmadapter.data import words
from rmadapter.data.loader import order
from rmadapter.data.task import Split, Task
from rmadapter.errors import DataError, SettingError, TrainingError, some
from rmadapter.evaluation import Scores, logits, score
from rmadapter.method import Method, similarity
from rmadapter.methods.parts.logit_net import standardise
from rmadapter.methods.transmiter import TransMiter
from rmadapter.methods.zero_shot import ZeroShot
from rmadapter.progress import counter
from rmadapter.solve import frozen_features
from rmadapter.train import TrainSettings, optimizer_of

WARMUP = 0.05
"""Share of the extraction's steps over which the rate rises."""
NOISY = 0.5
"""Share of the extraction's batches that get noise."""

Look = Callable[[Backbone, Split], Tensor]
"""Frozen features (n, d), L2-normalised, of a split's images."""


class Tables(NamedTuple):
    """Logits of the images that are learned from, in their order, on the CPU."""

    source: Tensor
    """(n, D) of the teacher's backbone, frozen."""
    teacher: Tensor
    """(n, N) of the teacher."""
    target: Tensor
    """(n, D) of the other backbone, frozen."""


@dataclass(frozen=True)
class Carried:
    """A net on the target, and what it cost."""

    method: TransMiter
    tables: Tables
    steps: int
    """Of the extraction and the supervised step."""
    terms: dict[str, float]
    """Mean loss over the last epoch: kl of the extraction, ce of the supervised step where there was one."""
    seconds: dict[str, float]
    """tabulate, extract, align, supervise."""


def carry(
    teacher: Method,
    target: Backbone,
    task: Task,
    classes: tuple[str, ...],
    *,
    seed: int = 1,
    plus: TrainSettings | None = None,
    look: Look = frozen_features,
    show_progress: bool = False,
    **settings: Any,
) -> Carried:
    """A ``TransMiter`` on another backbone, which does there what a teacher does on its own.

    Args:
        teacher: a trained method; its backbone is the source.
        target: any other backbone.
        task: its training images are looked at, and their labels with ``plus`` only; its classes are the base ones.
        classes: what the result is bound to: those of ``task`` first, novel ones behind them.
        seed: of auxiliary names, initial values, order and noise.
        plus: optimiser, schedule and batches of the supervised step; None: there is none.
        look: gives features of frozen backbones, where the caller keeps them.
        settings: changes to ``TransMiterSettings``; ``novel`` says whether the extraction may use the novel names.

    Raises:
        DataError: for classes that do not fit the task or the teacher, no images, or too few auxiliary names.
        SettingError: for a setting out of range, or a supervised step that tables do not allow.
        TrainingError: when a loss is not finite.
    """
    resolved = TransMiter(target, seed=seed, **settings).settings
    known = classes if resolved.novel == "known" else task.classes
    _check(teacher, task, classes, known, plus)
    own = {**resolved.plain(), "auxiliary": words.without(words.names(resolved.auxiliary), classes)}
    student, net = (_net(backbone, known, task.template, seed, own) for backbone in (teacher.backbone, target))
    bound = bind(net, classes)  # here, so that what cannot work is said before anything that takes long
    seconds: dict[str, float] = {}
    with _timed(seconds, "tabulate"):
        tables = tabulate(teacher, student, net, task.train, look)
    with _timed(seconds, "extract"):
        steps, kl = extract(student, tables.source, tables.teacher, show_progress=show_progress)
    with _timed(seconds, "align"):
        align(student, tables.source, net, tables.target)
    terms = {"kl": kl}
    if plus is not None:
        with _timed(seconds, "supervise"):
            more, terms["ce"] = supervise(net, tables.target, task.train, plus)
        steps += more
    bound.load_state_dict(net.state_dict(), strict=True)
    return Carried(bound.eval(), tables, steps, terms, seconds)


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    seconds[part] = round(time.perf_counter() - begun, 3)


def _check(
    teacher: Method, task: Task, classes: tuple[str, ...], known: tuple[str, ...], plus: TrainSettings | None
) -> None:
    if not len(task.train):
        raise DataError(f"task {task.name!r} has no training images to look at")
    if classes[: len(task.classes)] != task.classes:
        raise DataError(
            "the class list to carry over does not begin with the classes of the task",
            got=some(classes),
            allowed=f"{some(task.classes)}, and novel ones behind them",
        )
    lacking = [name for name in known if teacher.class_bound and name not in teacher.classes]
    if lacking:
        raise DataError(
            f"{teacher.name} knows the classes that it was trained on, and cannot teach others",
            got=some(lacking),
            allowed=some(teacher.classes),
            remedy="transfer a run that was trained on them, or keep novel names out by --method.novel blind",
        )
    if plus is not None:
        check_supervised(plus)


def check_supervised(settings: TrainSettings) -> None:
    """Raises SettingError for what the supervised step cannot do on a table."""
    if (settings.augment, settings.precision) != ("none", "fp32"):
        raise SettingError(
            "the supervised step sees a table of logits in float32, made without augmentation",
            got=f"augment {settings.augment}, precision {settings.precision}",
            allowed="--train.augment none, --train.precision fp32",
        )


def _net(
    backbone: Backbone, classes: tuple[str, ...], template: str, seed: int, settings: dict[str, Any]
) -> TransMiter:
    net = TransMiter(backbone, seed=seed, **settings)
    net.start(classes, template)
    return net


def bind(net: TransMiter, classes: tuple[str, ...]) -> TransMiter:
    """The same net for more classes: those behind its own take the places of its first auxiliary names.

    Raises:
        SettingError: where it has too few of these.
    """
    more, auxiliary = len(classes) - len(net.classes), net.settings.auxiliary
    if not more:
        return net
    if more > len(auxiliary):
        raise SettingError(
            "there is no room for the novel classes, which take the places of auxiliary names",
            got=f"{more} novel classes, {len(auxiliary)} auxiliary names",
            remedy=f"give a --method.dimension of {len(classes)} or more",
        )
    bound = _net(net.backbone, classes, net.template, net.seed, {**net.settings.plain(), "auxiliary": auxiliary[more:]})
    bound.load_state_dict(net.state_dict(), strict=True)
    return bound


@torch.no_grad()
def frozen_logits(method: Method, classes: Sequence[str], template: str, features: Tensor) -> Tensor:
    """Logits (n, D) of a method's backbone as it is, of frozen features (n, d), on the CPU: all names of the method."""
    text = method.frozen("text", method.begin_text(classes, template)).cpu()
    return similarity(method.backbone.clip.logit_scale.exp().cpu() * features, text)


def tabulate(
    teacher: Method, student: TransMiter, net: TransMiter, train: Split, look: Look = frozen_features
) -> Tables:
    """All that is learned from: both backbones run here, and not again."""
    named = replace(train, classes=student.classes)  # the same labels, since novel classes stand behind them
    taught = logits(teacher.predictor(student.classes, student.template), named)
    source, target = (
        frozen_logits(each, each.classes, each.template, look(each.backbone, train)) for each in (student, net)
    )
    for what, table in (("teacher", taught), ("source", source), ("target", target)):
        if not table.isfinite().all():
            raise TrainingError(f"the {what}'s logits are not finite", remedy="look at that model: evaluate it")
    return Tables(source, taught, target)


def extract(student: TransMiter, source: Tensor, teacher: Tensor, *, show_progress: bool = False) -> tuple[int, float]:
    """Train a net, in place, to turn logits (n, D) of its backbone into a teacher's (n, N). No label is there.

    Returns:
        The number of steps, and the mean loss over the last epoch.
    """
    s, device = student.settings, student.backbone.device
    source, teacher = source.to(device), teacher.to(device)
    optimizer = torch.optim.AdamW(student.parameters(), lr=s.extraction_rate, weight_decay=s.extraction_decay)
    random = torch.Generator().manual_seed(student.seed)
    batches = math.ceil(len(source) / s.extraction_batch)
    steps, number, total = s.extraction_epochs * batches, 0, 0.0
    with counter("extracting", steps, show_progress) as count:
        for _ in range(s.extraction_epochs):
            total = 0.0
            for index in torch.randperm(len(source), generator=random).split(s.extraction_batch):
                inputs = _noisy(source[index.to(device)], s.noise, random)
                refined = student.net(inputs)[:, : teacher.shape[1]]
                loss = distillation(refined, teacher[index.to(device)], s.teacher_temperature)
                _step(optimizer, loss, s.extraction_rate * rise_and_fall(number, steps), "kl", number, steps)
                total += loss.item() * len(index) / len(source)
                number += 1
                count(1)
    return steps, total


def distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The loss of a student's logits and a teacher's, both (b, N): τ KL of softmax(t / τ), a mean over images."""
    target = (teacher / temperature).log_softmax(dim=-1)
    kl: Tensor = F.kl_div(logits.log_softmax(dim=-1), target, reduction="batchmean", log_target=True)
    return temperature * kl


def rise_and_fall(step: int, steps: int) -> float:
    """Share of the learning rate at a step: a linear rise over the first ``WARMUP`` of all, then a cosine to 0."""
    warmup = WARMUP * steps
    if step < warmup:
        return min(1.0, (step + 1) / warmup)
    return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def _noisy(inputs: Tensor, noise: float, random: torch.Generator) -> Tensor:
    """Logits (b, D) with noise, or as they are: drawn for the batch."""
    drawn, values = torch.rand((), generator=random), torch.randn(inputs.shape, generator=random)
    if drawn <= 1 - NOISY:
        return inputs
    return inputs + noise * inputs.std(dim=-1, keepdim=True) * values.to(inputs.device)


def _step(optimizer: Any, loss: Tensor, rate: float, term: str, number: int, steps: int) -> None:
    if not loss.isfinite():
        raise TrainingError(
            f"the loss is not finite at step {number + 1} of {steps}",
            got=f"{term} = {loss.item()}",
            remedy="lower --method.extraction-rate" if term == "kl" else "lower --train.lr",
        )
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@torch.no_grad()
def rotation(source: Tensor, target: Tensor, ridge: float) -> Tensor:
    """R (D, D), orthogonal, that turns the rows of T towards those of S and is held to the identity by λ.

    It minimises |T R - S|^2 + λ |R - I|^2: R = P Q^T, where T^T S + λ I = P Σ Q^T. Where images are fewer than logits,
    what no image shows stays as it is. Reflections are allowed. In float64, on the CPU, as not every device has that.

    Args:
        source, target: S and T (n, D), standardised.
        ridge: λ.
    """
    s, t = source.cpu().double(), target.cpu().double()
    p, _, q = torch.linalg.svd(t.T @ s + ridge * torch.eye(s.shape[1], dtype=s.dtype))
    turn: Tensor = (p @ q).to(source)
    return turn


@torch.no_grad()
def align(student: TransMiter, source: Tensor, net: TransMiter, target: Tensor) -> None:
    """Give a net on the target, in place, what a student has learned. In closed form: no gradient is computed.

    Args:
        source, target: logits (n, D) of the same images on both backbones.
    """
    s, device = student.settings, student.backbone.device
    tables = [standardise(table.to(device))[0] for table in (source, target)]
    count, size = source.shape
    ridge = s.ridge if s.ridge_share is None else s.ridge_share * count * (size - 1)
    turned = student.net.matrix() @ rotation(tables[0], tables[1], ridge).T
    state = {**student.net.state_dict(), "base": turned, "skew": torch.zeros_like(turned)}
    net.net.load_state_dict(state, strict=True)
    assert all(parameter.grad is None for parameter in net.parameters())


def supervise(net: TransMiter, target: Tensor, train: Split, settings: TrainSettings) -> tuple[int, float]:
    """TransMiter+: train a net, in place, on labelled images; among the classes of these. The last epoch counts.

    Args:
        target: logits (n, D) of the images of ``train`` on the net's backbone.

    Returns:
        The number of steps, and the mean loss over the last epoch.
    """
    s, device = settings.whole(len(train)), net.backbone.device
    target, labels = target.to(device), torch.tensor(train.labels, device=device)
    optimizer = optimizer_of(s, list(net.parameters()))
    epochs = [order(len(train), s.batch_size, s.seed, epoch) for epoch in range(s.epochs)]
    steps, number, total = sum(map(len, epochs)), 0, 0.0
    for epoch, batches in enumerate(epochs):
        total = 0.0
        for step, index in enumerate(batches):
            refined = net.net(target[index])[:, : len(train.classes)]
            loss = F.cross_entropy(refined, labels[index])
            _step(optimizer, loss, s.rate(epoch, step, len(batches)), "ce", number, steps)
            total += loss.item() / len(batches)
            number += 1
    return steps, total


def eft(target: Tensor, source: Tensor, teacher: Tensor) -> Tensor:
    """Emulated fine-tuning, log p (b, c) up to a constant an image: the target, with what the teacher changed."""
    target, source, teacher = (each.log_softmax(dim=-1) for each in (target, source, teacher))
    return target + teacher - source


def ensemble(target: Tensor, teacher: Tensor) -> Tensor:
    """The mean (b, c) of the log-probabilities of both."""
    return (target.log_softmax(dim=-1) + teacher.log_softmax(dim=-1)) / 2


@dataclass(frozen=True)
class Mixture:
    """A baseline: models that all run for every image, and whose log-probabilities are mixed."""

    way: Literal["eft", "ensemble"]
    target: Backbone
    teacher: Method
    look: Look = frozen_features

    def scores(self, split: Split, template: str, **options: Any) -> Scores:
        """Scores on a split; the options are those of ``evaluation.logits``, for the teacher."""
        taught = logits(self.teacher.predictor(split.classes, template), split, **options)
        target, source = (self._plain(each, split, template) for each in (self.target, self.teacher.backbone))
        mixed = eft(target, source, taught) if self.way == "eft" else ensemble(target, taught)
        return score(mixed, split.labels)

    def _plain(self, backbone: Backbone, split: Split, template: str) -> Tensor:
        return frozen_logits(ZeroShot(backbone), split.classes, template, self.look(backbone, split))

    def trained(self) -> int:
        """Nothing is trained but the teacher."""
        return 0

    def flops(self, classes: Sequence[str], template: str) -> int:
        """Operations that an image costs at inference beside the target's own, text computed beforehand.

        The teacher and its frozen source share what they have in common of the image tower: all of it where the teacher
        leaves that alone, else the blocks below its first.
        """
        names, source = (self.teacher.classes if self.teacher.class_bound else classes), self.teacher.backbone
        plain = ZeroShot(source)
        pixels = torch.zeros(1, 3, source.preprocess.size, source.preprocess.size, dtype=torch.uint8)
        taught = _flops(partial(self.teacher.predictor(names, template).logits, pixels))
        if self.way == "ensemble":
            return taught
        image, text = (torch.randn(n, source.shape.joint, device=source.device) for n in (1, len(names)))
        whole = taught + _flops(lambda: plain.head(image, text))
        if self.teacher.touches("image"):
            rows = self.teacher.begin("image", source.preprocess.normalise(pixels.to(source.device)))
            whole += _flops(lambda: self.teacher.frozen("image", rows))
        return whole


def added_flops(net: TransMiter) -> int:
    """The same for a net: its own operations, and those of the logits of auxiliary names."""
    device, plain = net.backbone.device, ZeroShot(net.backbone)
    count, every = len(net.classes), len(net.named(net.classes))
    image, text = (torch.randn(n, net.backbone.shape.joint, device=device) for n in (1, every))
    return _flops(lambda: net.head(image, text)) - _flops(lambda: plain.head(image, text[:count]))


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


@torch.no_grad()
def _flops(run: Callable[[], object]) -> int:
    run()  # what is computed once is there then
    on_a_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}  # torch counts all others
    with FlopCounterMode(display=False, custom_mapping=on_a_cpu) as counted:
        run()
    return int(counted.get_total_flops())
