"""fit(): the one training loop.

Order, augmentation, learning rate and the random state of every step are pure functions of (settings, seed, epoch,
step), so a run can be interrupted at any time: it goes on after its last whole epoch, to the same bytes as if it had
not been.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import random
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from rmadapter import adapter, checkpoint, progress, recipes
from rmadapter.data.loader import Augment, order
from rmadapter.data.task import Task
from rmadapter.errors import DataError, SettingError, TrainingError, UserError
from rmadapter.files import new_folder, write_atomic, write_json, write_text
from rmadapter.gradients import gradients
from rmadapter.method import Method, Rows, Teacher
from rmadapter.settings import Seed, Settings
from rmadapter.solve import solve
from rmadapter.views import Seen, SharedRows, Views

STEPS, SHOTS, FIT = "steps.jsonl", "shots.json", "fit.json"
WORKERS = 8
"""Processes that decode and augment for a GPU, at most, where none are asked for."""
SAVING = 20
"""Between two checkpoints passes so many times what a checkpoint takes to write: at 1 shot an epoch is one step."""


class TrainSettings(Settings):
    """Optimiser, schedule and batches. Defaults are MMA's but for the warm-up; schedules as in Dassl, as CoOp's."""

    epochs: PositiveInt = 5
    """Passes over the few-shot set."""
    updates: PositiveInt | None = None
    """Steps in all, instead of epochs: as many whole epochs as come nearest, at least one. Epochs that are given
    replace a recipe's updates, and updates its epochs; where both are given, updates count."""
    batch_size: PositiveInt = 16
    """Images a step; a last, smaller batch is dropped unless it is the only one."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """sgd as mostly published; adamw suits small backbones; adam adds the decay to the gradient."""
    lr: PositiveFloat = 0.0015
    """Learning rate before the schedule."""
    momentum: NonNegativeFloat = 0.9
    """Momentum of sgd; others do not use it."""
    weight_decay: NonNegativeFloat = 5e-4
    """On every trained tensor."""
    schedule: Literal["cosine", "cosine_by_step", "constant"] = "cosine"
    """cosine falls once an epoch as published, and is not yet 0 in the last one; cosine_by_step falls to 0 smoothly."""
    warmup_epochs: NonNegativeInt = 1
    """Epochs at warmup_lr before the schedule begins."""
    warmup_lr: PositiveFloat = 1e-5
    """Constant learning rate of the warm-up."""
    augment: Augment = "crop_flip"
    """crop_flip: random resized crop (8 to 100 % of the area) and horizontal flip; randaugment: squashed to a square,
    then two random operations; none: as in evaluation."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the forward pass; losses are summed in float32 always."""
    workers: NonNegativeInt | None = None
    """Processes that decode and augment; the result does not depend on it. None: up to 8 where a GPU would wait for new
    views of the images at every step and Python forks, else none: a CPU's cores compute meanwhile anyway."""
    seed: Seed = 1
    """Of batch order and augmentation."""

    def whole(self, images: int) -> TrainSettings:
        """The same with ``updates`` as epochs, for so many training images: all that trains sees epochs alone."""
        if self.updates is None:
            return self
        steps = len(order(images, self.batch_size, self.seed, 0))
        return self.model_copy(update={"epochs": max(1, round(self.updates / steps)), "updates": None})

    def processes(self, device: str | torch.device) -> int:
        """``workers``, or as many as suit a device."""
        if self.workers is not None:
            return self.workers
        if torch.device(device).type != "cuda" or self.augment == "none":
            return 0
        # Asked for so that it is not fixed by the question; any way but fork would run a user's script once more.
        start = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
        return min(WORKERS, torch.get_num_threads()) if start == "fork" else 0

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """Learning rate at step ``step`` of ``steps`` in epoch ``epoch`` (both from 0).

        cosine: lr (1 + cos(π (e - W) / E)) / 2 with W warm-up epochs: the closed form of Dassl's schedule.
        """
        if epoch < self.warmup_epochs:
            return self.warmup_lr
        if self.schedule == "constant":
            return self.lr
        done = epoch - self.warmup_epochs
        if self.schedule == "cosine":
            return self.lr * (1 + math.cos(math.pi * done / self.epochs)) / 2
        whole = self.epochs - self.warmup_epochs
        return self.lr * (1 + math.cos(math.pi * (done + step / steps) / whole)) / 2


@dataclass(frozen=True)
class Fit:
    """What training did."""

    steps: int
    seconds: float
    """Of all processes that the run has had."""
    images_per_second: float
    terms: dict[str, float]
    """Mean of each named loss over the last epoch; what ``solve`` returned, where no steps were taken."""
    recalled: int = 0
    """Images whose frozen rows another run had computed (``SharedRows``): so much less is in the seconds."""


def train_settings(
    method: str, variant: str, changes: dict[str, Any], case: recipes.Case = recipes.USUAL
) -> TrainSettings:
    """The training settings of a method's shipped recipe with some changed: the one place where the two meet."""
    return TrainSettings.parse(recipes.over(recipes.defaults(method, variant, "train", case), changes), "train")


def fit(
    method: Method,
    task: Task,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    show_progress: bool = True,
    shared: SharedRows | None = None,
    **train: Any,
) -> Fit:
    """Train a method on a task's training items, and write the adapter.

    Args:
        method: changed in place; its backbone is not. One that is ``solved`` takes no step, and uses no train setting.
        task: its ``train`` split is learned from, all of it; cut it by ``task.base().shots(16, seed=1)``.
        out: folder for the adapter, the log and the checkpoint; None: nothing is written.
        resume: go on with the run that ``out`` holds.
        show_progress: show a bar, where standard error is a terminal.
        shared: one ``rmadapter.views.SharedRows()`` for several calls, which then do the frozen blocks' work once on
            views that they have in common.
        train: changes to the ``TrainSettings`` of the method's shipped recipe, by name (``epochs=10``). The seed is the
            method's, unless another one is given.

    Raises:
        SettingError: for an unknown or impossible setting. DataError: for a task without training items.
        TrainingError: when a loss is not finite; it names the step and the term.
    """
    case = recipes.Case(backbone=method.backbone.name)
    settings = train_settings(method.name, method.backbone.variant, {"seed": method.seed, **train}, case)
    if not len(task.train):
        raise DataError(f"task {task.name!r} has no training items")
    folder = None if out is None else _unfinished(Path(out), resume)
    method.start(task.classes, task.template)
    method.teacher_template = task.teacher_template
    if method.solved:
        result = Fit(0, *solve(method, task, show_progress=show_progress))
    else:
        result = _Run(method, task, settings.whole(len(task.train)), folder, resume, shared).train(show_progress)
    if folder is not None:
        if method.solved:
            write_text(folder / STEPS, json.dumps(result.terms) + "\n")
        write_json(folder / SHOTS, task.manifest().plain())
        write_json(folder / FIT, asdict(result))
        adapter.save(method, folder)
        (folder / checkpoint.FILE).unlink(missing_ok=True)
    return result


def _unfinished(out: Path, resume: bool) -> Path:
    folder = new_folder(out, resume)
    if adapter.is_whole(folder):
        raise UserError(
            f"{folder} holds a trained adapter: its run is finished", remedy="load it, or name another folder"
        )
    return folder


class _Run:
    """The state of one call of ``fit``."""

    def __init__(
        self,
        method: Method,
        task: Task,
        settings: TrainSettings,
        folder: Path | None,
        resume: bool,
        shared: SharedRows | None,
    ) -> None:
        self.method, self.task, self.settings, self.folder, self.shared = method, task, settings, folder, shared
        self.parameters = [parameter for parameter in method.parameters() if parameter.requires_grad]
        if self.parameters and settings.epochs <= settings.warmup_epochs and settings.warmup_lr < settings.lr:
            many = f"{settings.epochs} epoch{'s' * (settings.epochs != 1)}"
            said = f"{many}, all of them warm-up at a rate of {settings.warmup_lr:g}, so that little is learned"
            warnings.warn(f"{said}: train for longer, or with --train.warmup_epochs 0", stacklevel=3)
        self.batches = [order(len(task.train), settings.batch_size, settings.seed, e) for e in range(settings.epochs)]
        self.steps = sum(map(len, self.batches)) if self.parameters else 0
        self.first_epoch, self.spent = 0, 0.0
        self.next_save = 0.0
        self.views: Views | None = None
        self.identity = "" if folder is None else self._identity()  # once: a file that it reads may go away meanwhile
        if self.parameters:
            self.accelerator, self.optimizer = _prepare(method, settings, self.parameters)
            if resume and folder is not None:
                scaler = self.accelerator.scaler
                found = checkpoint.restore(folder, method, self.optimizer, scaler, self.identity)
                self.first_epoch, self.spent = found
        self._trim_log()

    def before(self, epoch: int) -> int:
        """Steps of all epochs before one."""
        return sum(map(len, self.batches[:epoch]))

    def train(self, show_progress: bool) -> Fit:
        device = self.method.backbone.device
        bar = progress.training(self.steps, self.before(self.first_epoch), visible=show_progress)
        with torch.random.fork_rng([device] if device.type == "cuda" else []), bar as show:
            return self._train(show)

    def _train(self, show: Any) -> Fit:
        started, seen, sums = time.perf_counter(), 0, dict[str, float]()
        text = self.method.begin_text(self.task.classes)
        teacher = self.method.teacher_text(self.task.classes, text) if self.method.needs_teacher else None
        self.method.train()
        for epoch, step, batch in self._stream():
            if step == 0:
                sums = {}
            terms = self._step(epoch, step, batch, text, teacher)
            seen += len(batch.labels)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value / len(self.batches[epoch])
            show(terms, seen / (time.perf_counter() - started))
            if step == len(self.batches[epoch]) - 1:
                self._after_epoch(epoch + 1, self._seconds(started))
        self.method.eval()
        seconds, images = self._seconds(started), sum(len(batch) for epoch in self.batches for batch in epoch)
        recalled = self.views.recalled if self.views else 0
        return Fit(self.steps, seconds, images / seconds if self.steps else 0.0, sums, recalled)

    def _seconds(self, started: float) -> float:
        """That training has taken, by this process and by those before it."""
        return self.spent + time.perf_counter() - started

    def _after_epoch(self, done: int, seconds: float) -> None:
        self.method.after_epoch(done, self.settings.epochs)
        if self.folder and done < self.settings.epochs and time.perf_counter() >= self.next_save:
            begun, scaler = time.perf_counter(), self.accelerator.scaler
            checkpoint.save(self.folder, self.method, self.optimizer, scaler, done, seconds, self.identity)
            saved = time.perf_counter()
            self.next_save = saved + SAVING * (saved - begun)

    def _stream(self) -> Iterator[tuple[int, int, Seen]]:
        """(epoch, step within it, batch) for all that is still to do."""
        if not self.parameters:
            return
        s = self.settings
        workers, train = s.processes(self.method.backbone.device), self.task.train
        shared = self._shared()
        self.views = Views(self.method, train, s.augment, s.seed, self.accelerator.autocast, workers, shared)
        todo = [(e, i) for e in range(self.first_epoch, s.epochs) for i in range(len(self.batches[e]))]
        batches = self.views.batches([(e, self.batches[e][i]) for e, i in todo], s.batch_size, again=s.epochs > 1)
        for (epoch, step), batch in zip(todo, batches, strict=True):
            yield epoch, step, batch

    def _shared(self) -> SharedRows | None:
        s, backbone = self.settings, self.method.backbone
        if s.augment == "none":  # it keeps none there, and those of another run may be of use yet
            return self.shared
        drawn = (s.augment, s.seed, self.method.views, *(item.picture for item in self.task.train))
        key = (backbone.clip, backbone.preprocess, str(backbone.device), s.precision, *drawn)
        return self.shared and self.shared.for_run(key)

    def _step(self, epoch: int, step: int, batch: Seen, text: Rows, teacher: Tensor | None) -> dict[str, float]:
        number = self.before(epoch) + step
        torch.manual_seed(random.Random(f"step-{self.settings.seed}-{number}").getrandbits(63))  # for dropout and noise
        rate = self.settings.rate(epoch, step, len(self.batches[epoch]))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        frozen = None if teacher is None or batch.teacher is None else Teacher(batch.teacher, teacher, number)
        run = self.accelerator
        terms = gradients(self.method, batch.rows, batch.labels, text, frozen, run.autocast, run.backward)
        losses = torch.stack(list(terms.values()))
        values = dict(zip(terms, losses.tolist(), strict=True))  # at once: each read waits for a GPU
        for name, value in values.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss is not finite at step {number + 1} of {self.steps}",
                    got=f"{name} = {value}",
                    remedy="lower --train.lr, or train in fp32 (--train.precision fp32)",
                )
        self.optimizer.step()
        self.optimizer.zero_grad()  # now, so that gradients take no memory from the next step's activations
        self._log({"step": number, "epoch": epoch, "lr": rate, "loss": sum(values.values()), **values})
        return values

    # The log ---------------------------------------------------------------------------------

    def _log(self, line: dict[str, Any]) -> None:
        if self.folder is not None:
            try:
                with (self.folder / STEPS).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
            except OSError as error:
                raise UserError(f"cannot write {self.folder / STEPS}", got=error.strerror) from error

    def _trim_log(self) -> None:
        """Drop the lines of an interrupted epoch: it is run again."""
        if self.folder is None or not (self.folder / STEPS).exists():
            return
        keep = self.before(self.first_epoch)
        lines = (self.folder / STEPS).read_text(encoding="utf-8").splitlines(keepends=True)[:keep]
        write_atomic(self.folder / STEPS, lambda path: path.write_text("".join(lines), encoding="utf-8"))

    def _identity(self) -> str:
        """Hash of all that decides the result, so that no other run's checkpoint is gone on with."""
        content = {
            "method": [self.method.name, self.method.settings.decisive(), self.method.seed],
            "train": self.settings.model_dump(exclude={"workers"}),
            "task": self.task.sha256(),
            "backbone": self.method.backbone.sha256,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def optimizer_of(settings: TrainSettings, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser that the settings name; in one call for all tensors where torch has that for a CPU."""
    usual = all(each.device.type == "cpu" and each.dtype == torch.float32 for each in parameters)
    fused = True if usual else None  # False would also keep torch from taking all tensors at once elsewhere
    common: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay, "fused": fused}
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=settings.momentum, **common)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, **common)


def _prepare(method: Method, settings: TrainSettings, parameters: list[torch.nn.Parameter]) -> tuple[Accelerator, Any]:
    optimizer = optimizer_of(settings, parameters)
    AcceleratorState._reset_state(True)  # accelerate keeps the first precision of a process; each run has its own
    device, precision = method.backbone.device.type, settings.precision
    if precision == "fp16" and device == "cpu":  # accelerate would train in float32 without a word
        raise SettingError("a cpu cannot train in fp16", allowed="fp32, bf16")
    try:
        accelerator = Accelerator(mixed_precision="no" if precision == "fp32" else precision, cpu=device == "cpu")
    except ValueError as error:
        raise SettingError(f"this machine cannot train in {precision}", got=str(error), allowed="fp32") from error
    return accelerator, accelerator.prepare(optimizer)
