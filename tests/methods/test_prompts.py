"""Prompt-learning methods: what golden numbers do not pin. Sizes, places, depths, teachers, averages, sentences."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import normalize

import rmadapter as ra
from rmadapter import checkpoint, train
from rmadapter.backbones import Backbone, outline
from rmadapter.data import Task
from rmadapter.errors import BackboneError, DataError, SettingError
from rmadapter.method import Method
from rmadapter.methods import method_class
from rmadapter.methods.parts import templates
from small import small_pair

METHODS = ("coop", "cocoop", "kgcoop", "maple", "promptsrc", "coprompt")
DEEP = ("maple", "promptsrc", "coprompt")


def build(name: str, backbone: Backbone, **settings: object) -> Method:
    return method_class(name)(backbone, **settings)


@pytest.fixture(scope="module")
def small() -> Backbone:
    return small_pair(image_depth=4, text_depth=3)[1]


@pytest.fixture(scope="module")
def vit_b_16() -> Backbone:
    return outline("ViT-B-16")


@pytest.mark.parametrize(
    ("name", "settings", "count"),
    [
        ("coop", {}, 2_048),
        ("coop", {"length": 16, "initial": "random"}, 8_192),
        ("cocoop", {}, 35_360),
        ("kgcoop", {}, 2_048),
        ("maple", {}, 3_555_072),
        ("maple", {"depth": 3}, 1_185_024),
        ("promptsrc", {}, 46_080),
        ("promptsrc", {"depth": 3}, 15_360),
        ("promptsrc", {"depth": 12, "length": 2}, 30_720),
        ("coprompt", {}, 5_014_528),
        ("coprompt", {"length": 2}, 5_002_240),
        ("coprompt", {"depth": 9}, 3_826_432),
        ("coprompt", {"depth": 9, "length": 2}, 3_817_216),
    ],
)
def test_published_sizes(vit_b_16: Backbone, name: str, settings: dict, count: int) -> None:
    assert build(name, vit_b_16, **settings).trained() == count


def entering(method: Method, name: str, template: str) -> Tensor:
    """Rows (l, w) that go into the text tower for a class."""
    rows = method.begin_text([name], template)
    image = torch.zeros(1, method.backbone.shape.joint) if method.conditional_text else None
    return method.tokens("text", rows.x, image)[0].detach()


def embedded(backbone: Backbone, text: str) -> Tensor:
    ids = backbone.tokenize([text])
    return backbone.tower("text").rows(ids[:, : int(ids.argmax()) + 1])[0]


@pytest.mark.parametrize("name", [name for name in METHODS if name != "cocoop"])
@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_the_context_starts_as_the_first_words_and_the_rest_stays(small: Backbone, name: str, length: int) -> None:
    method = build(name, small, length=length)
    assert torch.equal(entering(method, "red_panda", method.template), embedded(small, "a photo of a red panda."))
    with torch.no_grad():
        method.context.fill_(7.0)
    rows, plain = entering(method, "red_panda", method.template), embedded(small, "a photo of a red panda.")
    assert (rows[1 : 1 + length] == 7).all()
    assert torch.equal(rows[0], plain[0]) and torch.equal(rows[1 + length :], plain[1 + length :])


def test_placeholders_make_room_where_words_are_missing(small: Backbone) -> None:
    method = build("coop", small, length=6)
    random = build("coop", small, length=6, initial="random").context.detach()
    assert 0.01 < float(random.std()) < 0.03
    for template, plain, missing in (
        ("a photo of a {}.", "a photo of a cat.", 2),
        ("one {}.", "one cat.", 5),
        ("{} texture.", "cat texture.", 6),
        ("a picture that shows one small {}.", "a picture that shows one small cat.", 0),
    ):
        method.start(("cat",), template)  # not trained yet: takes the words of each in turn
        rows, words = entering(method, "cat", template), embedded(small, plain)
        assert len(rows) == len(words) + missing
        assert torch.equal(rows[1 + missing :], words[1:]) and torch.equal(rows[1 : 1 + missing], random[:missing])


@pytest.mark.parametrize("name", METHODS)
def test_words_that_run_into_names_are_an_error(small: Backbone, name: str) -> None:
    method = build(name, small, length=1)
    with pytest.raises(DataError, match=r"run into class names.*\n.*'un\{\}'\n.*a space"):
        method.begin_text(["happy", "seen"], "un{}")
    method.begin_text(["happy", "seen"], "un {}")


def test_a_random_context_takes_the_place_of_all_words(small: Backbone) -> None:
    method = build("coop", small, length=2, initial="random")
    rows, plain = entering(method, "cat", "a photo of a {}, a pet."), embedded(small, "cat, a pet.")
    assert torch.equal(rows[3:], plain[1:]) and torch.equal(rows[1:3], method.context)
    assert not torch.equal(method.context, build("coop", small, length=2).context)


def test_untrained_coop_is_zero_shot_with_the_tasks_template(pictoclip: Backbone, few: Task) -> None:
    task = few.with_template("one small picture showing a {} on white.")
    images = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    zero_shot = ra.ZeroShot(pictoclip).predictor(task.classes, task.template).logits(images)
    for name in ("coop", "kgcoop"):
        method = build(name, pictoclip)
        assert (method.predictor(task.classes, task.template).logits(images) - zero_shot).abs().max() > 0.01
        method.start(task.classes, task.template)
        assert (method.predictor(task.classes).logits(images) - zero_shot).abs().max() < 1e-4
    # CoCoOp's net shifts the context from the start, as published.
    method = build("cocoop", pictoclip)
    method.start(task.classes, task.template)
    assert (method.predictor(task.classes).logits(images) - zero_shot).abs().max() > 0.01


@pytest.mark.parametrize("name", METHODS)
def test_names_that_leave_no_room_are_an_error(small: Backbone, name: str) -> None:
    build(name, small, length=60).begin_text(["cat"])
    with pytest.raises(BackboneError, match="too long"):
        build(name, small, length=60).begin_text(["a long name that goes on and on and on and on and on and on"])
    with pytest.raises(SettingError, match=r"no room for a class name.*\n.*75\n.*1 to 74"):
        build(name, small, length=75)


@pytest.mark.parametrize(
    ("image", "text", "promptsrc", "coprompt"),
    [(12, 12, (9, 9), 12), (6, 6, (4, 4), 6), (4, 3, (3, 2), 3), (1, 1, (1, 1), 1), (8, 4, (6, 3), 4)],
)
def test_the_depth_follows_the_towers(image: int, text: int, promptsrc: tuple[int, int], coprompt: int) -> None:
    _, backbone = small_pair(image_depth=image, text_depth=text)
    towers = ("image", "text")
    free, coupled, all_blocks = (build(name, backbone) for name in ("promptsrc", "maple", "coprompt"))
    assert tuple(len(free.touches(tower)) for tower in towers) == promptsrc
    assert [len(coupled.touches(tower)) for tower in towers] == [min(promptsrc)] * 2
    assert [len(all_blocks.touches(tower)) for tower in towers] == [coprompt] * 2


@pytest.mark.parametrize("name", DEEP)
def test_a_depth_beyond_a_tower_is_an_error(small: Backbone, name: str) -> None:
    assert build(name, small, depth=3).touches("image") == range(3)
    with pytest.raises(SettingError, match=r"depth goes beyond a tower of small\n.*4\n.*1 to 3"):
        build(name, small, depth=4)
    with pytest.raises(SettingError, match="depth is not valid"):
        build(name, small, depth=0)


@pytest.mark.parametrize("name", DEEP)
def test_deep_rows_are_replaced_up_to_the_depth_and_carried_on_behind_it(small: Backbone, name: str) -> None:
    method = build(name, small, depth=2, length=3).train()
    for tower, at in (("text", slice(1, 4)), ("image", slice(-3, None))):
        x = torch.randn(2, 9, small.tower(tower).width)
        assert torch.equal(method.before(tower, 0, x), x)
        after = method.before(tower, 1, x)
        kept = torch.ones(9, dtype=torch.bool)
        kept[at] = False
        assert torch.equal(after[:, kept], x[:, kept])
        assert torch.equal(after[0, at], method.rows(tower, 1)) and torch.equal(after[1, at], method.rows(tower, 1))
        assert method.touches(tower) == range(2)
    assert method.tokens("image", torch.zeros(2, 17, small.shape.image.width)).shape[1] == 20


def test_couplings_of_deep_prompts_start_alike_and_the_first_by_itself(small: Backbone) -> None:
    _, backbone = small_pair(image_depth=6, text_depth=6)
    coupling = build("maple", backbone, depth=4).coupling
    assert torch.equal(coupling["2"].weight, coupling["4"].weight) and coupling["2"].weight is not coupling["4"].weight
    assert not torch.equal(coupling["1"].weight, coupling["2"].weight)


@pytest.mark.parametrize("name", DEEP)
def test_rows_that_start_at_random_differ(small: Backbone, name: str) -> None:
    method = build(name, small, initial="random")
    rows = [method.rows(tower, i) for tower in ("text", "image") for i in method.touches(tower)]
    for one, other in itertools.combinations([row[0, :16] for row in rows], 2):
        assert not torch.allclose(one, other)
    context = [build(name, small, initial="random", seed=seed).context for seed in (1, 2)]
    assert torch.equal(method.context, context[0]) and not torch.equal(*context)


def test_every_image_has_text_of_its_own_in_cocoop(pictoclip: Backbone) -> None:
    method = build("cocoop", pictoclip).eval()
    images = torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        text = method(method.begin("image", images), method.begin_text(["cat", "red panda"])).features.text
    assert text.shape == (3, 2, pictoclip.shape.joint)
    assert (text[0] - text[1]).abs().max() > 1e-4


# Teachers -----------------------------------------------------------------------------------------------------


def test_one_tensor_trains_in_kgcoop_and_its_teacher_is_a_written_prompt(small: Backbone) -> None:
    classes = ["cat", "red_panda"]
    method = build("kgcoop", small, length=16, initial="random", teacher_template="a sketch of a {}.")
    assert [name for name, _ in method.named_parameters()] == ["context"]
    own = ra.ZeroShot(small)
    expected = own.frozen("text", own.begin_text(classes, "a sketch of a {}."))
    teacher = method.teacher_text(classes, method.begin_text(classes))
    assert (teacher - expected).abs().max() < 1e-6
    method = build("kgcoop", small)
    method.start(("cat", "red_panda"), "a photo of a {}, a pet.")  # none given: the task's
    expected = own.frozen("text", own.begin_text(classes, "a photo of a {}, a pet."))
    assert (method.teacher_text(classes, method.begin_text(classes)) - expected).abs().max() < 1e-6
    method.start(("cat", "red_panda"), "a photo of a {}.")
    method.teacher_template = "a photo of a {}, a pet."  # that of a public data set stays, whatever the prompt is
    assert (method.teacher_text(classes, method.begin_text(classes)) - expected).abs().max() < 1e-6


def test_templates_are_averaged_before_they_are_normalised(small: Backbone) -> None:
    given = ["a photo of a {}.", "a {}", "art of the {}."]
    raw = torch.stack([templates.encode(small, [t.replace("{}", n) for n in ("cat", "owl")]) for t in given])
    found = templates.average(small, ["cat", "owl"], given)
    assert (found - normalize(raw.mean(dim=0), dim=-1)).abs().max() < 1e-6
    assert (found - normalize(normalize(raw, dim=-1).mean(dim=0), dim=-1)).abs().max() > 1e-5


def test_the_templates_are_published_ones() -> None:
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    assert len(templates.TEMPLATES) == 60 and templates.TEMPLATES[-1] == "itap of the {}."
    assert tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES[:60]) == templates.TEMPLATES
    assert templates.generic(0, "a {}") == ("a {}",) and len(templates.generic(7, "a {}")) == 7


def test_encoding_in_chunks_changes_nothing(small: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a cat", "a photo of a red panda in the snow.", "owl"]
    whole = templates.encode(small, texts)
    monkeypatch.setattr(templates, "TEXTS", 2)
    assert (templates.encode(small, texts) - whole).abs().max() < 1e-5


# PromptSRC's average ------------------------------------------------------------------------------------------


def test_published_weights_of_the_epochs(small: Backbone) -> None:
    method = build("promptsrc", small)
    weights = method.weights(20)
    assert weights[11:18].tolist() == pytest.approx([0.0044, 0.054, 0.242, 0.399, 0.242, 0.054, 0.0044], rel=0.02)
    assert float(weights.sum()) == pytest.approx(1) and float(weights[:11].sum()) < 2e-4
    flat = build("promptsrc", small, average_mean=6, average_std=10).weights(20)
    assert int(flat.argmax()) == 5 and float(flat[0] / flat[5]) == pytest.approx(0.8825, rel=1e-3)
    for epochs in (1, 2, 5, 200):  # another length of training: the same shape of curve
        assert float(method.weights(epochs).sum()) == pytest.approx(1)
    assert int(method.weights(200).argmax()) + 1 == 150
    far = build("promptsrc", small, average_mean=1000, average_std=0.1).weights(5)
    assert far.tolist() == [0, 0, 0, 0, 1]


def test_the_average_runs_over_the_ends_of_epochs_and_training_does_not_see_it(
    pictoclip: Backbone, few: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, settings = few.shots(2, seed=1), {"epochs": 4, "show_progress": False}
    method = build("promptsrc", pictoclip, average_mean=2, average_std=2)
    ends: list[dict[str, Tensor]] = []
    original = type(method).after_epoch

    def spy(self: Method, epoch: int, epochs: int) -> None:
        assert (epoch, epochs) == (len(ends) + 1, 4)
        ends.append({key: value.clone() for key, value in self.state_dict().items()})
        original(self, epoch, epochs)
        if epoch < epochs:
            for key, value in self.state_dict().items():
                assert torch.equal(value, ends[-1][key])

    monkeypatch.setattr(type(method), "after_epoch", spy)
    saved: list[dict[str, Tensor]] = []
    save = checkpoint.save
    monkeypatch.setattr(train, "SAVING", 0)
    monkeypatch.setattr(
        checkpoint,
        "save",
        lambda folder, *rest: (save(folder, *rest), saved.append(load_file(folder / checkpoint.FILE))),
    )
    ra.fit(method, task, tmp_path, **settings)
    weights = method.weights(4)
    adapter = load_file(tmp_path / "adapter_model.safetensors")
    assert adapter.keys() == ends[0].keys() == {name for name, _ in method.named_parameters()}
    for key, value in adapter.items():
        expected = sum(float(weight) * end[key] for weight, end in zip(weights, ends, strict=True))
        assert (value - expected).abs().max() < 1e-6
        assert not torch.equal(value, ends[-1][key])
    assert len(saved) == 3 and all(tensors["gathered.running"].numel() == method.trained() for tensors in saved)


# CoPrompt's sentences and views -------------------------------------------------------------------------------


def test_the_sentence_is_a_function_of_seed_and_step(small: Backbone) -> None:
    one, other = (build("coprompt", small, seed=seed) for seed in (1, 2))
    drawn = [one.drawn(step, 10) for step in range(300)]
    again = build("coprompt", small, seed=1)  # in another order, as a resumed run asks
    assert drawn[::-1] == [again.drawn(step, 10) for step in reversed(range(300))]
    assert drawn != [other.drawn(step, 10) for step in range(300)]
    assert set(drawn) == set(range(10))


def test_sentences_come_from_a_file_or_from_templates(small: Backbone, tmp_path: Path) -> None:
    file = tmp_path / "said.json"
    file.write_text(json.dumps({"Red panda": ["It is red.", "It climbs."], "cat": ["It purrs.", "It is small."]}))
    method = build("coprompt", small, sentences=str(file))
    found = method.teacher_text(["cat", "red_panda"], method.begin_text(["cat", "red_panda"]))
    raw = templates.encode(small, ["It purrs.", "It is red.", "It is small.", "It climbs."])
    assert found.shape == (2, 2, small.shape.joint)
    assert (found - normalize(raw, dim=-1).view(2, 2, -1)).abs().max() < 1e-5
    method = build("coprompt", small, templates=3)
    assert method.teacher_text(["cat", "owl"], method.begin_text(["cat", "owl"])).shape[:2] == (3, 2)
    own = build("coprompt", small, templates=0)
    plain = ra.ZeroShot(small)
    expected = plain.frozen("text", plain.begin_text(["cat", "owl"]))
    assert (own.teacher_text(["cat", "owl"], own.begin_text(["cat", "owl"]))[0] - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "missing or not JSON"),
        ("[]", "does not hold an object"),
        ('{"cat": ["a"]}', "says nothing of class 'otter'"),
        ('{"cat": ["a"], "otters": ["b"]}', "did you mean 'otters'"),
        ('{"cat": ["a"], "otter": "b"}', "class 'otter' has no list of sentences"),
        ('{"cat": [], "otter": []}', "class 'cat' has no list of sentences"),
        ('{"cat": ["a", "b"], "otter": ["c"]}', r"same number of sentences.*\n.*1 for 'otter', 2 for 'cat'"),
    ],
)
def test_a_file_of_sentences_that_does_not_fit_is_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "said.json"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        templates.sentences(file, ["cat", "otter"])
    with pytest.raises(DataError, match="missing or not JSON"):
        templates.sentences(tmp_path / "none.json", ["cat"])


def test_a_coprompt_in_training_or_trained_needs_no_sentences(pictoclip: Backbone, few: Task, tmp_path: Path) -> None:
    file = tmp_path / "said.json"
    file.write_text(json.dumps({name: ["red", "blue", "green"] for name in few.classes}))
    method = build("coprompt", pictoclip, sentences=str(file))
    terms = method.terms
    method.terms = lambda *args: file.unlink(missing_ok=True) or terms(*args)  # gone before the first checkpoint
    result = ra.fit(method, few.shots(1, seed=1), tmp_path / "run", show_progress=False, epochs=2)
    assert result.terms.keys() == {"ce", "consistency_text", "consistency_image"} and not file.exists()
    assert ra.load(tmp_path / "run").predictor(["cat", "otter"]).classes == ("cat", "otter")


def test_the_method_sees_the_first_view_and_its_teacher_the_second(
    pictoclip: Backbone, few: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    cls = method_class("coprompt")
    forward, frozen = cls.forward, cls.frozen
    monkeypatch.setattr(cls, "forward", lambda self, image, text: (seen.append(image.x), forward(self, image, text))[1])
    monkeypatch.setattr(cls, "frozen", lambda self, tower, rows: (seen.append(rows.x), frozen(self, tower, rows))[1])
    ra.fit(cls(pictoclip), few.shots(1, seed=1), show_progress=False, epochs=1, augment="randaugment")
    student, teacher = seen
    assert student.shape == teacher.shape and not torch.equal(student, teacher)
