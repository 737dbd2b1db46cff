"""What every method promises; a new file in ``methods`` is tested here without an edit."""

from __future__ import annotations

import ast
import copy
import inspect
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import rmadapter as ra
from rmadapter import frame, gradients, recipes
from rmadapter.backbones import Backbone, outline
from rmadapter.backbones.clip import TOWERS
from rmadapter.data import Task
from rmadapter.errors import DataError
from rmadapter.method import Method, Teacher
from rmadapter.methods import method_class, method_names
from rmadapter.recipe import resolve
from small import small_pair

METHODS = method_names()
LONGER = {"rmadapter": 190}  # half of it is the text of its settings
SMALL: dict[str, dict[str, Any]] = {"transmiter": {"dimension": 16}}  # 1,024 as published: seconds a step on a CPU


def build(name: str, backbone: Backbone, classes: tuple[str, ...] = ("cat", "dog"), **settings: Any) -> Method:
    """A method that has been told its classes, not trained; what a class-bound one trains is created by that."""
    method = method_class(name)(backbone, **SMALL.get(name, {}), **settings)
    method.start(classes, backbone.template)
    return method


@pytest.fixture(params=METHODS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_file_class_and_docs(name: str) -> None:
    cls = method_class(name)
    assert cls.name == name == Path(inspect.getfile(cls)).stem
    module = inspect.getmodule(cls)
    assert module is not None and module.__doc__ is not None
    assert cls.source.split(",")[0] in module.__doc__, "the file opens with its source"
    assert cls.__doc__ and cls.__doc__ != Method.__doc__
    assert len(Path(inspect.getfile(cls)).read_text().splitlines()) <= LONGER.get(name, 150)


def test_every_setting_says_what_it_is_for(name: str) -> None:
    for key, field in method_class(name).Settings.model_fields.items():
        assert field.description, f"{name}.{key} has no text under it"
        assert not field.is_required(), f"{name}.{key} has no default"


def test_no_sizes_are_written_into_the_code(name: str) -> None:
    tree = ast.parse(Path(inspect.getfile(method_class(name))).read_text())
    numbers = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, int)}
    assert not numbers & {512, 768, 1024, 77}


def test_the_shipped_recipe_resolves(name: str) -> None:
    for backbone in ("pictoclip-s", "ViT-B-16"):
        recipe = resolve(None, {"method": {"name": name}, "backbone": backbone})
        assert recipe.method == name
    for shipped in recipes.names():
        assert resolve(shipped, {}).method == shipped.split("/")[0]


@pytest.mark.parametrize("backbone", ["ViT-B-16", "ViT-L-14"])  # 12 and 12 blocks; 24 and 12
def test_what_stands_beside_blocks_stands_beside_the_upper_ones(name: str, backbone: str) -> None:
    method = method_class(name)(outline(backbone), **SMALL.get(name, {}))
    for tower in TOWERS:
        touched, depth = method.touches(tower), method.backbone.tower(tower).depth
        assert touched.stop <= depth
        if type(method).beside is not Method.beside:
            assert touched.stop == depth and touched.start > 0


def test_backbone_bytes_and_gradients(name: str, pictoclip: Backbone, few: Task) -> None:
    before = {key: value.clone() for key, value in pictoclip.clip.state_dict().items()}
    method = build(name, pictoclip)
    assert not {id(p) for p in method.parameters()} & {id(p) for p in pictoclip.clip.parameters()}
    ra.fit(method, few.shots(2, seed=1), show_progress=False, epochs=1)
    for key, parameter in pictoclip.clip.named_parameters():
        assert parameter.grad is None and not parameter.requires_grad
        assert torch.equal(parameter, before[key])


def test_strict_save_and_another_class_list(name: str, pictoclip: Backbone, few: Task, tmp_path: Path) -> None:
    method = build(name, pictoclip)
    ra.fit(method, few.shots(2, seed=1), tmp_path, show_progress=False, epochs=1)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert saved.keys() == method.state_dict().keys()
    loaded = ra.load(tmp_path)
    others = ("unicorn", "hedgehog", "red apple")
    for classes in (few.classes, few.classes[3:0:-1]) if method.class_bound else (few.classes, others):
        one, other = (m.predictor(classes) for m in (method, loaded))
        images = [item.picture.open() for item in few.val.items[:4]]
        assert torch.equal(one.probabilities(images), other.probabilities(images))
        assert one.probabilities(images).sum(dim=-1) == pytest.approx([1.0] * 4, abs=1e-5)


@pytest.mark.parametrize("name", [name for name in METHODS if method_class(name).class_bound])
def test_a_class_bound_method_chooses_among_its_classes(name: str, pictoclip: Backbone, few: Task) -> None:
    method = build(name, pictoclip)
    assert method.trained() > 0
    with pytest.raises(DataError, match="none yet"):
        method_class(name)(pictoclip).predictor(few.classes)
    ra.fit(method, few.shots(2, seed=1), show_progress=False, epochs=1)
    pixels = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8)
    every, some = (method.predictor(classes).logits(pixels) for classes in (few.classes, few.classes[3:0:-1]))
    assert torch.equal(some, every[:, [3, 2, 1]])
    with pytest.raises(DataError, match=r"the classes that it was trained on.*\n.*given: +unicorn, hedgehog\n"):
        method.predictor([few.classes[0], "unicorn", "hedgehog"])
    with pytest.raises(DataError, match="same name"):
        method.predictor([few.classes[0], few.classes[0]])


def test_the_published_settings_train(name: str, few: Task) -> None:
    _, backbone = small_pair()
    method = build(name, backbone, few.classes)
    before = {key: value.clone() for key, value in method.named_parameters()}
    ra.fit(method, few.shots(2, seed=1), show_progress=False, epochs=2)
    assert all(not torch.equal(value, before[key]) for key, value in method.named_parameters())


def test_the_loss_falls_on_eight_images(name: str, pictoclip: Backbone, few: Task) -> None:
    method = build(name, pictoclip)
    task = few._only(range(4)).shots(2, seed=1)
    if method.solved:
        assert ra.fit(method, task, show_progress=False).terms["ce"] < math.log(4)  # that of all classes alike
        return
    if method.trained() == 0:
        pytest.skip("nothing trains")
    first = ra.fit(build(name, pictoclip), task, show_progress=False, epochs=1, augment="none", batch_size=8)
    last = ra.fit(method, task, show_progress=False, epochs=30, augment="none", batch_size=8)
    assert last.terms["ce"] < first.terms["ce"]
    assert sum(last.terms.values()) < sum(first.terms.values())


def test_deterministic_for_a_seed(name: str, pictoclip: Backbone, few: Task) -> None:
    states = []
    for seed in (1, 1, 2):
        method = build(name, pictoclip, few.classes, seed=seed)
        ra.fit(method, few.shots(2, seed=1), show_progress=False, epochs=1, seed=seed)
        states.append(method.state_dict())
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key])
    if states[0] and not method.solved:  # a solver starts from no draw
        assert any(not torch.equal(value, states[2][key]) for key, value in states[0].items())


def test_an_interrupted_run_goes_on_to_the_same_bytes(
    name: str, pictoclip: Backbone, few: Task, tmp_path: Path
) -> None:
    if method_class(name).solved or build(name, pictoclip).trained() == 0:
        pytest.skip("there is no step to interrupt")
    task, settings = few.shots(2, seed=1), {"epochs": 4, "batch_size": 4, "show_progress": False}
    ra.fit(build(name, pictoclip), task, tmp_path / "whole", **settings)
    method, calls = build(name, pictoclip), iter(range(8))
    terms = method.terms
    method.terms = lambda *args: terms(*args) if next(calls, None) is not None else {}["stop"]  # in the third epoch
    with pytest.raises(KeyError, match="stop"):
        ra.fit(method, task, tmp_path / "cut", **settings)
    ra.fit(build(name, pictoclip), task, tmp_path / "cut", resume=True, **settings)
    for file in ("adapter_model.safetensors", "steps.jsonl"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_second_training_starts_from_what_the_first_one_learned(name: str, pictoclip: Backbone, few: Task) -> None:
    task = few.shots(2, seed=1)
    method = build(name, pictoclip)
    ra.fit(method, task, show_progress=False, epochs=1)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    method.start(task.classes, task.template)
    for key, value in method.state_dict().items():
        assert torch.equal(value, before[key])


def test_a_predictor_sees_every_image_by_itself(name: str, pictoclip: Backbone, few: Task) -> None:
    predictor = build(name, pictoclip, few.classes).predictor(few.classes)
    pixels = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([predictor.logits(image[None]) for image in pixels])
    assert (predictor.logits(pixels) - alone).abs().max() < 1e-4


@pytest.mark.parametrize("name", [name for name in METHODS if method_class(name).conditional_text])
@pytest.mark.parametrize("memory", [1, 4_000_000])
def test_text_of_each_image_runs_in_chunks(
    name: str, memory: int, pictoclip: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pair of an image and a class at a time, or a few: the same logits and gradients."""
    backbone = copy.deepcopy(pictoclip)
    backbone.clip.double()
    method = build(name, backbone).double().train()
    found = []
    for budget in (frame.MEMORY, memory):
        monkeypatch.setattr(frame, "MEMORY", budget)
        method.zero_grad()
        images = torch.randn(3, 3, 48, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        output = method(method.begin("image", images), method.begin_text(["cat", "red panda", "dog", "owl"]))
        assert output.features.text.shape == (3, 4, backbone.shape.joint)
        assert (output.features.text[0] - output.features.text[1]).abs().max() > 1e-4
        method.terms(output, torch.tensor([0, 3, 1]), None)["ce"].backward()
        found.append([output.features.logits.detach(), *(parameter.grad.clone() for parameter in method.parameters())])
    for one, other in zip(*found, strict=True):
        assert (one - other).abs().max() < 1e-10


@pytest.mark.parametrize(("most", "parts"), [(1, 5), (2, 3), (99, 1)])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(
    name: str, most: int, parts: int, pictoclip: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same terms and gradients, however few images may be there at once."""
    backbone = copy.deepcopy(pictoclip)
    backbone.clip.double()
    method = build(name, backbone, ("cat", "red panda", "dog", "owl")).double().train()
    if method.solved or not method.trained():
        pytest.skip("no step is taken")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in method.parameters():  # |f - f0| has no gradient where a method starts as the identity
            parameter += 0.1 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
    images = method.begin("image", torch.randn(5, 3, 48, 48, dtype=torch.float64, generator=generator))
    text, labels = method.begin_text(method.classes), torch.tensor([0, 3, 1, 1, 2])
    teacher = None
    if method.needs_teacher:
        teacher = Teacher(method.frozen("image", images), method.teacher_text(method.classes, text), 3)
    whole = method.terms(method(images, text), labels, teacher)
    torch.stack(list(whole.values())).sum().backward()
    wanted = {key: p.grad.clone() for key, p in method.named_parameters() if p.grad is not None}
    method.zero_grad()
    monkeypatch.setattr(gradients, "CPU", most * frame.kept(backbone.tower("image"), images))
    if method.conditional_text:
        monkeypatch.setattr(frame, "MEMORY", most * frame.kept(backbone.tower("text"), text))
    split = method.conditional_text or len(method.touches("image")) > 0
    assert len(list(gradients.parts(method, images, text))) == (parts if split else 1)
    given = (method, images, labels, text, teacher)
    terms = gradients.gradients(*given, nullcontext, Tensor.backward)
    assert terms.keys() == whole.keys()
    for key, term in terms.items():
        assert not term.requires_grad and abs(term - whole[key]) < 1e-10
    found = {key: p.grad for key, p in method.named_parameters() if p.grad is not None}
    assert found.keys() == wanted.keys() and found
    for key, grad in found.items():
        assert (grad - wanted[key]).abs().max() < 1e-10 * max(1.0, float(wanted[key].abs().max())), key


def test_the_frame_calls_no_seam_outside_what_the_method_touches(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, backbone = small_pair(image_depth=6, text_depth=5)
    method = build(name, backbone).train()
    called: dict[tuple[str, str], set[int]] = {}
    for seam in ("before", "beside", "local"):
        original = getattr(method, seam)

        def spy(tower: str, i: int, *rows: Tensor, seam: str = seam, original: Any = original) -> Any:
            called.setdefault((seam, tower), set()).add(i)
            return original(tower, i, *rows)

        monkeypatch.setattr(method, seam, spy)
    method(method.begin("image", torch.randn(2, 3, 32, 32)), method.begin_text(method.classes))
    for tower in TOWERS:
        touched = method.touches(tower)
        assert not touched or (touched.start >= 0 and touched.stop <= backbone.tower(tower).depth)
        for seam in ("before", "beside", "local"):
            assert called.get((seam, tower), set()) == set(touched)


def test_the_frame_cuts_nothing_that_matters(name: str) -> None:
    """The head gets the same whether or not text is cut, frozen blocks run apart, and the last one computes one row."""
    _, backbone = small_pair(image_depth=6, text_depth=5)
    backbone.clip.double()
    method = build(name, backbone).double().eval()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ids = backbone.tokenize([f"a photo of a {name}." for name in method.named(["cat", "red panda in the snow"])])
    with torch.no_grad():
        output = method(method.begin("image", images), method.begin("text", ids))
        image = whole(method, "image", images)
        if method.conditional_text:
            text = torch.stack([whole(method, "text", ids, feature.expand(len(ids), -1)) for feature in image])
        else:
            text = whole(method, "text", ids)
        for ours, plain in zip(output.features, method.head(image, text), strict=True):
            assert (ours - plain).abs().max() < 1e-8


def whole(method: Method, name: str, inputs: Tensor, image: Tensor | None = None) -> Tensor:
    """A tower with every row and block, the seams called wherever the method acts. Features before the head."""
    tower = method.backbone.tower(name)  # type: ignore[arg-type]
    x = tower.enter(
        method.tokens(tower.name, tower.rows(inputs), image) if 0 in method.touches(tower.name) else tower.rows(inputs)
    )
    for i in range(tower.depth):
        acts = i in method.touches(tower.name)
        x = method.before(tower.name, i, x) if acts else x
        u = tower.block(i).ln_1(x)
        added = method.beside(tower.name, i, u) if acts else None
        x = tower.block(i)(x, u)
        x = x if added is None else x + added
    rows = inputs.argmax(dim=-1) if name == "text" else torch.zeros(len(inputs), dtype=torch.long)
    return tower.pool(x[torch.arange(len(x)), rows])


def test_logits_are_finite_and_of_the_right_shape(name: str, pictoclip: Backbone, few: Task) -> None:
    predictor = build(name, pictoclip, few.classes).predictor(few.classes)
    pixels = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8)
    logits = predictor.logits(pixels)
    assert logits.shape == (3, len(few.classes)) and logits.dtype == torch.float32
    assert math.isfinite(float(logits.abs().max()))
