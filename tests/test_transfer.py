"""Carrying an adaptation over: what is looked at, the closed form, the supervised step, and the baselines."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import rmadapter as ra
from rmadapter import transfer
from rmadapter.backbones import Backbone
from rmadapter.data import Item, Task
from rmadapter.data.loader import order
from rmadapter.errors import DataError, SettingError, TrainingError
from rmadapter.method import Method
from rmadapter.methods.linear_probe import LinearProbe
from rmadapter.methods.parts.logit_net import standardise
from rmadapter.methods.transmiter import TransMiter
from rmadapter.train import TrainSettings
from small import small_pair

QUICK = {"dimension": 24, "extraction_epochs": 3}
STEP = TrainSettings(
    epochs=4, batch_size=8, optimizer="adamw", lr=0.01, schedule="cosine_by_step", warmup_epochs=0, augment="none"
)


@pytest.fixture(scope="module")
def small() -> Backbone:
    """Another width, depth, joint dimension, image size and tokenizer than pictoclip-s."""
    return small_pair()[1]


@pytest.fixture(scope="module")
def base(few: Task) -> Task:
    """Three of the six classes, two images of each."""
    return few.base().shots(2, seed=1)


@pytest.fixture(scope="module")
def teacher(pictoclip: Backbone, base: Task) -> Method:
    method = ra.RMAdapter(pictoclip)
    ra.fit(method, base, show_progress=False, epochs=2)
    return method


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def state(method: Method) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in method.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


# The whole way ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("novel", ["known", "blind"])
@pytest.mark.parametrize("plus", [None, STEP])
def test_what_comes_out_knows_all_classes_and_changed_nothing_else(
    novel: str, plus: TrainSettings | None, teacher: Method, small: Backbone, base: Task, few: Task
) -> None:
    before = [state(teacher), *(dict(b.clip.state_dict()) for b in (teacher.backbone, small))]
    before = [{key: value.clone() for key, value in each.items()} for each in before]
    carried = transfer.carry(teacher, small, base, few.classes, plus=plus, novel=novel, **QUICK)
    after = [state(teacher), *(dict(b.clip.state_dict()) for b in (teacher.backbone, small))]
    assert all(same(one, other) for one, other in zip(before, after, strict=True))
    assert all(parameter.grad is None for parameter in small.clip.parameters())
    method, known = carried.method, 6 if novel == "known" else 3
    assert method.backbone is small and method.classes == few.classes and not method.training
    assert carried.tables.teacher.shape == (6, known)
    assert carried.tables.source.shape == carried.tables.target.shape == (6, 24)
    assert len(method.settings.auxiliary) == 18 and not set(method.settings.auxiliary) & set(few.classes)
    assert carried.steps == 3 + (0 if plus is None else 4) and carried.terms.keys() == {"kl"} | (
        {"ce"} if plus else set()
    )
    assert list(carried.seconds)[:3] == ["tabulate", "extract", "align"]
    found = ra.evaluate(method.predictor(few.novel().classes), few.novel().val)
    assert len(found.predicted) == len(few.novel().val) and set(found.predicted) <= {0, 1, 2}
    again = transfer.carry(teacher, small, base, few.classes, plus=plus, novel=novel, **QUICK)
    other = transfer.carry(teacher, small, base, few.classes, plus=plus, novel=novel, seed=2, **QUICK)
    assert same(state(method), state(again.method)) and not same(state(method), state(other.method))


def test_the_base_classes_are_learned(teacher: Method, small: Backbone, few: Task) -> None:
    """On images of its own, a net does beside the frozen backbone what the teacher does on it."""
    task = few.base().shots(8, seed=1)
    method = ra.RMAdapter(teacher.backbone)
    ra.fit(method, task, show_progress=False, epochs=8)
    settings = {"dimension": 24, "extraction_epochs": 60, "extraction_batch": 8, "noise": 0, "teacher_temperature": 1}
    carried = transfer.carry(method, teacher.backbone, task, few.classes, **settings)
    images = replace(task.val, items=task.train.items)
    plain, found, taught = (
        transfer.logits(each.predictor(task.classes, task.template), images).softmax(dim=-1)
        for each in (ra.ZeroShot(teacher.backbone), carried.method, method)
    )
    assert (found - taught).abs().mean() < 0.2 * (plain - taught).abs().mean()


def test_labels_are_used_by_the_supervised_step_alone(teacher: Method, small: Backbone, base: Task, few: Task) -> None:
    wrong = replace(base, train_items=tuple(Item((item.label + 1) % 3, item.picture) for item in base.train_items))
    for plus in (None, STEP):
        one, other = (transfer.carry(teacher, small, task, few.classes, plus=plus, **QUICK) for task in (base, wrong))
        assert same(state(one.method), state(other.method)) == (plus is None)


def test_no_test_or_validation_image_is_opened(teacher: Method, small: Backbone, base: Task, few: Task) -> None:
    class Closed:
        name = "closed"

        def open(self) -> Any:
            raise AssertionError("this image is for testing")

    items = tuple(Item(0, Closed()) for _ in range(3))
    closed = replace(base, test_items=items, val_items=items)
    one, other = (transfer.carry(teacher, small, task, few.classes, plus=STEP, **QUICK) for task in (base, closed))
    assert same(state(one.method), state(other.method))


@pytest.mark.parametrize("novel", ["known", "blind"])
def test_blind_means_that_no_novel_name_is_read(
    novel: str, teacher: Method, small: Backbone, base: Task, few: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    for backbone in (teacher.backbone, small):
        tokenizer = backbone.tokenizer
        monkeypatch.setattr(backbone, "tokenizer", Reader(tokenizer, read))
    names = [*(f"thing {i}" for i in range(30)), *few.classes]  # a list in which the novel names stand, too
    carried = transfer.carry(teacher, small, base, few.classes, novel=novel, auxiliary=tuple(names), plus=STEP, **QUICK)
    found = {name for name in few.classes for text in read if f" {name}." in text}
    assert found == set(few.classes if novel == "known" else base.classes)
    assert carried.method.classes == few.classes


class Reader:
    """A tokenizer that notes what it is given."""

    def __init__(self, tokenizer: Any, read: list[str]) -> None:
        self.tokenizer, self.read = tokenizer, read

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)

    def __call__(self, texts: list[str]) -> Tensor:
        self.read += texts
        return self.tokenizer(texts)


def test_a_teacher_that_knows_its_classes_only(pictoclip: Backbone, small: Backbone, base: Task, few: Task) -> None:
    probe = LinearProbe(pictoclip, strength=1)
    ra.fit(probe, base, show_progress=False)
    with pytest.raises(DataError, match=rf"cannot teach others\n.*given: +{few.classes[3]}, .*\n(.*\n)*.*blind"):
        transfer.carry(probe, small, base, few.classes, **QUICK)
    carried = transfer.carry(probe, small, base, few.classes, novel="blind", **QUICK)
    assert carried.method.classes == few.classes
    again = transfer.carry(carried.method, pictoclip, base, few.classes, **QUICK)  # what was carried over teaches, too
    assert again.method.backbone is pictoclip


def test_what_it_refuses(teacher: Method, small: Backbone, base: Task, few: Task) -> None:
    def carry(task: Task = base, classes: tuple[str, ...] = few.classes, **given: Any) -> None:
        transfer.carry(teacher, small, task, classes, **{**QUICK, **given})

    with pytest.raises(DataError, match="does not begin with the classes of the task"):
        carry(classes=few.classes[::-1])
    with pytest.raises(DataError, match="no training images"):
        carry(replace(base, train_items=()))
    with pytest.raises(SettingError, match="6 classes do not fit into 5 logits"):
        carry(dimension=5)
    with pytest.raises(SettingError, match=r"no room for the novel classes.*\n.*3 novel classes, 1 auxiliary"):
        carry(dimension=4, novel="blind")
    with pytest.raises(SettingError, match="unknown setting 'rigde'"):
        carry(rigde=5)
    with pytest.raises(SettingError, match="without augmentation"):
        carry(plus=STEP.model_copy(update={"augment": "crop_flip"}))
    with pytest.raises(TrainingError, match=r"not finite at step \d+ of 60\n.*kl = "):
        carry(extraction_rate=1e18, extraction_epochs=60)


# Extraction ------------------------------------------------------------------------------------------------------


def student(backbone: Backbone, classes: int = 4, **settings: Any) -> TransMiter:
    method = TransMiter(backbone, **{"dimension": 12, **settings})
    method.start(tuple(f"class {i}" for i in range(classes)), backbone.template)
    return method


def test_extraction_learns_the_teachers_logits(small: Backbone) -> None:
    net = student(small, extraction_epochs=100, extraction_batch=16, noise=0)
    source = 3 * noise(64, 12)
    taught = source[:, [1, 2, 3, 0]]
    with torch.no_grad():
        first = transfer.distillation(net.net(source)[:, :4], taught, 0.5)
    steps, last = transfer.extract(net, source, taught)
    assert steps == 400 and last < 0.3 * first


def test_extraction_by_hand(small: Backbone) -> None:
    """Order, noise, temperature, rate and decay, written once more; the last batch is smaller."""
    settings = {"extraction_epochs": 2, "extraction_batch": 4, "teacher_temperature": 0.75, "noise": 0.7}
    net, hand = (student(small, extraction_rate=0.01, extraction_decay=0.1, **settings) for _ in range(2))
    for each in (net, hand):
        each.net.double()  # AdamW's first steps make much of the last bits
    source, taught = noise(10, 12).double(), noise(10, 4, seed=1).double()
    steps, last = transfer.extract(net, source, taught)
    random = torch.Generator().manual_seed(hand.seed)
    optimizer = torch.optim.AdamW(hand.parameters(), lr=0.01, weight_decay=0.1)
    for epoch in range(2):
        total = 0.0
        for batch, index in enumerate(torch.randperm(10, generator=random).split(4)):
            drawn, values = torch.rand((), generator=random), torch.randn(len(index), 12, generator=random)
            x = source[index]
            if drawn > 0.5:
                x = x + 0.7 * x.std(dim=-1, keepdim=True) * values
            p, q = (taught[index] / 0.75).softmax(dim=-1), hand.net(x)[:, :4].softmax(dim=-1)
            loss = 0.75 * (p * (p / q).log()).sum(dim=-1).mean()
            optimizer.param_groups[0]["lr"] = 0.01 * transfer.rise_and_fall(3 * epoch + batch, 6)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(index) / 10
    assert steps == 6 and last == pytest.approx(total, rel=1e-6)
    for one, other in zip(net.parameters(), hand.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-8)


def test_the_distillation_by_hand() -> None:
    logits, taught = noise(3, 5), noise(3, 5, seed=1)
    p, q = (taught / 0.25).softmax(dim=-1), logits.softmax(dim=-1)
    expected = 0.25 * (p * (p / q).log()).sum(dim=-1).mean()
    assert transfer.distillation(logits, taught, 0.25) == pytest.approx(float(expected), rel=1e-5)


def test_the_rate_rises_and_falls() -> None:
    rates = [transfer.rise_and_fall(step, 100) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0]) and rates[5] == 1
    assert rates[50] == pytest.approx((1 + math.cos(math.pi * 45 / 95)) / 2) and 0 < rates[-1] < 0.001
    assert max(transfer.rise_and_fall(step, 30) for step in range(30)) == 1  # 1.5 steps of rise do not overshoot


def test_half_of_the_batches_get_noise_of_their_own_size() -> None:
    random, logits = torch.Generator().manual_seed(0), torch.cat([noise(50, 40), 10 * noise(50, 40, seed=1)])
    added = [transfer._noisy(logits, 0.5, random) - logits for _ in range(200)]
    with_noise = [each for each in added if each.abs().max() > 0]
    assert 80 <= len(with_noise) <= 120
    spread = torch.stack(with_noise).std(dim=(0, 2)) / logits.std(dim=-1)
    assert spread.mean() == pytest.approx(0.5, abs=0.01)


# Alignment -------------------------------------------------------------------------------------------------------


def orthogonal(size: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(noise(size, size, seed=seed))[0]


def test_a_turned_table_is_turned_back() -> None:
    source = noise(200, 10)
    turn = orthogonal(10)
    assert (transfer.rotation(source, source @ turn, 1e-6) - turn.T).abs().max() < 1e-4
    assert (transfer.rotation(source, source, 5) - torch.eye(10)).abs().max() < 1e-5


def test_no_other_turn_is_better() -> None:
    source, target, ridge = noise(30, 8), noise(30, 8, seed=1), 3.0

    def cost(turn: Tensor) -> float:
        return float((target @ turn - source).square().sum() + ridge * (turn - torch.eye(8)).square().sum())

    best = transfer.rotation(source, target, ridge)
    assert (best @ best.T - torch.eye(8)).abs().max() < 1e-5
    near = [best @ torch.linalg.matrix_exp(0.1 * (a - a.T)) for a in (noise(8, 8, seed=s) for s in range(20))]
    assert all(cost(best) < cost(turn) for turn in [*near, *(orthogonal(8, s) for s in range(20)), torch.eye(8)])


def test_what_no_image_shows_stays_as_it_is() -> None:
    source, target = torch.zeros(5, 12), torch.zeros(5, 12)
    source[:, :4], target[:, :4] = noise(5, 4), noise(5, 4, seed=1)
    turn = transfer.rotation(source, target, 0.1)
    assert (turn[4:, 4:] - torch.eye(8)).abs().max() < 1e-5 and (turn[:4, :4] - torch.eye(4)).abs().max() > 0.1
    assert (transfer.rotation(source, target, 1e9) - torch.eye(12)).abs().max() < 1e-4


def test_a_net_on_its_own_backbone_stays_what_it_is(small: Backbone) -> None:
    one, other = student(small), student(small, seed=2)
    logits = noise(40, 12)
    transfer.extract(one, logits, logits[:, [1, 2, 3, 0]])
    transfer.align(one, logits, other, logits)
    with torch.no_grad():
        assert (one.net(logits) - other.net(logits)).abs().max() < 1e-4


def test_the_ridge_as_a_share(small: Backbone) -> None:
    source, target = noise(40, 12), noise(40, 12, seed=1)
    nets = {}
    for key, settings in {"share": {"ridge_share": 0.1}, "same": {"ridge": 0.1 * 40 * 11}, "other": {}}.items():
        one, nets[key] = student(small, **settings), student(small)
        transfer.align(one, source, nets[key], target)
    assert same(state(nets["share"]), state(nets["same"])) and not same(state(nets["share"]), state(nets["other"]))
    s = standardise(source)[0]
    assert float(s.square().sum()) == pytest.approx(40 * 11, rel=1e-4)


def test_the_target_sees_no_gradient(small: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a gradient")

    one, other = student(small), student(small)
    source = noise(40, 12)
    transfer.extract(one, source, source[:, :4])
    for name in ("backward", "grad"):
        monkeypatch.setattr(torch.autograd, name, refuse)
    transfer.align(one, source, other, noise(40, 12, seed=1))
    assert all(p.grad is None and p.grad_fn is None for p in other.parameters()) and other.net.base.grad_fn is None
    with pytest.raises(AssertionError, match="a gradient"):
        transfer.extract(one, source, source[:, :4])
    with torch.enable_grad():  # a net that has been trained there is refused
        other.net.skew.grad = torch.zeros(12, 12)
        with pytest.raises(AssertionError):
            transfer.align(one, source, other, source)


# The supervised step ---------------------------------------------------------------------------------------------


def test_the_supervised_step_learns_the_labels(small: Backbone, base: Task) -> None:
    net, table = student(small), noise(6, 12)
    before = net.net.matrix().detach().clone()
    first = torch.nn.functional.cross_entropy(net.net(table)[:, :3], torch.tensor(base.train.labels)).item()
    steps, last = transfer.supervise(net, table, base.train, STEP.model_copy(update={"epochs": 30}))
    assert steps == 30 and last < 0.5 * first
    after = net.net.matrix().detach()
    assert (after - before).abs().max() > 1e-3 and (after @ after.T - torch.eye(12)).abs().max() < 1e-5


def test_the_supervised_step_by_hand(small: Backbone, base: Task) -> None:
    """Order, rate by the schedule, and decay, written once more."""
    settings = STEP.model_copy(update={"batch_size": 3, "weight_decay": 0.1, "warmup_epochs": 1})
    net, hand = student(small), student(small)
    table, labels = noise(6, 12), torch.tensor(base.train.labels)
    assert transfer.supervise(net, table, base.train, settings)[0] == 8
    optimizer = torch.optim.AdamW(hand.parameters(), lr=settings.lr, weight_decay=0.1)
    for epoch in range(4):
        batches = order(6, 3, settings.seed, epoch)
        for step, index in enumerate(batches):
            optimizer.param_groups[0]["lr"] = settings.rate(epoch, step, 2)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(hand.net(table[index])[:, :3], labels[index]).backward()
            optimizer.step()
    rates = {settings.rate(epoch, step, 2) for epoch in range(4) for step in range(2)}
    assert len(rates) > 4  # so that a constant one would show
    for one, other in zip(net.parameters(), hand.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_it_looks_at_the_columns_of_the_labelled_classes_alone(small: Backbone, base: Task) -> None:
    """Among three classes of twelve logits, whatever the fourth class says."""
    table, found = noise(6, 12), []
    monkey = torch.zeros(12)
    for shift in (0.0, 50.0):
        net = student(small)
        monkey[3] = shift
        original = net.net.forward
        net.net.forward = lambda logits, original=original: original(logits) + monkey  # type: ignore[method-assign]
        found.append(transfer.supervise(net, table, base.train, STEP)[1])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_binding_puts_novel_names_in_the_place_of_auxiliary_ones(small: Backbone) -> None:
    net = student(small)
    bound = transfer.bind(net, (*net.classes, "wolf", "lynx"))
    assert bound.settings.auxiliary == net.settings.auxiliary[2:] and same(state(net), state(bound))
    names = list(bound.named(bound.classes))
    assert names[:4] == list(net.classes) and names[4:6] == ["wolf", "lynx"] and len(names) == 12
    assert transfer.bind(net, net.classes) is net


# Baselines -------------------------------------------------------------------------------------------------------


def test_eft_and_ensemble_by_hand() -> None:
    target, source, taught = (noise(4, 5, seed=seed) for seed in range(3))
    p_t, p_s, p_a = (each.softmax(dim=-1) for each in (target, source, taught))
    expected = p_t * p_a / p_s
    assert torch.allclose(transfer.eft(target, source, taught).softmax(dim=-1), expected / expected.sum(-1, True))
    expected = (p_t * p_a).sqrt()
    assert torch.allclose(transfer.ensemble(target, taught).softmax(dim=-1), expected / expected.sum(-1, True))


def test_mixtures_score_images_with_every_models_own_preprocessing(teacher: Method, small: Backbone, few: Task) -> None:
    part = few.novel()
    plain = [ra.ZeroShot(backbone) for backbone in (small, teacher.backbone)]
    target, source, taught = (
        transfer.logits(method.predictor(part.classes, part.template), part.val) for method in (*plain, teacher)
    )
    for way, mixed in (("eft", transfer.eft(target, source, taught)), ("ensemble", transfer.ensemble(target, taught))):
        mixture = transfer.Mixture(way, small, teacher)  # type: ignore[arg-type]
        assert mixture.scores(part.val, part.template).predicted == tuple(mixed.argmax(dim=-1).tolist())
    same_teacher = transfer.Mixture("eft", small, plain[1])  # nothing was learned, so nothing is added
    assert same_teacher.scores(part.val, part.template).predicted == tuple(target.argmax(dim=-1).tolist())


def test_operations_of_the_baselines_by_hand(pictoclip: Backbone, small: Backbone, few: Task) -> None:
    """The image tower of pictoclip-s, once or twice; its last block computes one row."""
    shape, rows, classes = pictoclip.shape, 37, 2
    w, hidden = shape.image.width, shape.image.mlp
    block = 2 * rows * (4 * w * w + 2 * w * hidden) + 4 * rows * rows * w
    last = 2 * (4 * w * w + 2 * w * hidden) + 4 * rows * w * shape.image.heads  # without keys and values
    patches = 2 * (rows - 1) * 3 * shape.patch_size**2 * w
    tower = patches + (shape.image.depth - 1) * block + last + 2 * w * shape.joint + 2 * classes * shape.joint
    plain, adapted = ra.ZeroShot(pictoclip), ra.RMAdapter(pictoclip)

    def flops(way: str, teacher: Method) -> int:
        return transfer.Mixture(way, small, teacher).flops(["cat", "dog"], plain.template)  # type: ignore[arg-type]

    assert flops("ensemble", plain) == tower
    assert flops("eft", plain) == tower + 2 * classes * shape.joint  # one tower serves teacher and source
    begun = adapted.touches("image").start + 1  # blocks that both run alike: those below the first, and that one itself
    apart = (shape.image.depth - begun - 1) * block + last + 2 * w * shape.joint + 2 * classes * shape.joint
    assert begun == 3 and flops("eft", adapted) == flops("ensemble", adapted) + apart > tower + apart
    probe = LinearProbe(pictoclip, strength=1)
    ra.fit(probe, few.base().shots(2, seed=1), show_progress=False)
    assert flops("eft", probe) > flops("ensemble", probe) > 0  # of the classes that it knows
