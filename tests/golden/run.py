"""Golden numbers: our code against the published implementations, given the same weights.

    python tests/golden/run.py [DIR]

DIR (default: the shipped copy) holds ``clip.safetensors`` and one file a method. A method's entry below says how the
names of its file become ours; the file says everything else (depths, widths, block ranges, template, class names).
A line a method: the largest relative error of logits, loss, gradients, and of what else its file pins (single terms,
the teacher's text). TransMiter's file holds logits in place of images: its line has those of the net on the source, its
turned matrix, and its logits on the target. Exits 1 when any is above 1e-4.
"""

from __future__ import annotations

import atexit
import copy
import itertools
import json
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.tokenizer import SimpleTokenizer
from safetensors import safe_open
from torch import Tensor

from rmadapter import transfer
from rmadapter.backbones import Backbone, build
from rmadapter.backbones.clip import Shape, TowerShape
from rmadapter.backbones.openclip import rename
from rmadapter.backbones.preprocess import Preprocess
from rmadapter.method import Method, Rows, Teacher
from rmadapter.methods import method_class
from rmadapter.methods.transmiter import TransMiter

DATA = Path(__file__).parent / "data"
LIMIT = 1e-4
VOCABULARY = 49408
HEAD_WIDTH = {"image": 64, "text": 64}


@dataclass(frozen=True)
class Golden:
    """A method's file: tensors, and the header's description."""

    tensors: dict[str, Tensor]
    about: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """All that the header says, on one level."""
        return {**self.about, **self.about["config"]}

    def group(self, prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}


def read(file: Path) -> Golden:
    with safe_open(file, "pt") as opened:
        about = json.loads((opened.metadata() or {}).get("json", "{}"))
        return Golden({key: opened.get_tensor(key) for key in opened.keys()}, about)  # noqa: SIM118 (not a dict)


def backbone(folder: Path) -> Backbone:
    """The small CLIP of a folder. It stores only the embedding rows that are used; the rest of the table stays 0."""
    state = read(folder / "clip.safetensors").tensors
    ids, rows = state.pop("token_embedding.ids"), state.pop("token_embedding.rows")
    table = torch.zeros(VOCABULARY, rows.shape[1])
    table[ids] = rows
    state["token_embedding.weight"] = table
    weights = rename(state, "golden")

    def tower(name: str) -> TowerShape:
        width = weights[f"{name}.projection"].shape[0]
        depth = 1 + max(int(m[1]) for m in (re.match(rf"{name}\.blocks\.(\d+)\.", key) for key in weights) if m)
        # Both towers of OpenAI's CLIP have heads of 64 channels.
        return TowerShape(
            width, depth, max(1, width // HEAD_WIDTH[name]), weights[f"{name}.blocks.0.fc.weight"].shape[0]
        )

    patch = weights["image.patch.weight"].shape[-1]
    side = round((weights["image.positions"].shape[0] - 1) ** 0.5) * patch
    shape = Shape(
        image=tower("image"),
        text=tower("text"),
        joint=weights["text.projection"].shape[1],
        image_size=side,
        patch_size=patch,
        context=weights["text.positions"].shape[0],
        vocabulary=VOCABULARY,
        activation="quick_gelu",
    )
    preprocess = Preprocess(side, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bicubic", "shortest")
    tokenizer = SimpleTokenizer(context_length=shape.context)
    return build((shape, weights, preprocess, tokenizer), "golden", None)


@dataclass(frozen=True)
class Entry:
    """How a published method is built here, and how its parameter names become ours."""

    method: str
    settings: Callable[[Golden], dict[str, Any]]
    rename: Callable[[str, Golden], str]
    terms: dict[str, str] = field(default_factory=dict)
    """The file's names of single terms, and ours."""
    teacher_text: str | None = None
    """The tensor with the teacher's text features."""
    file: str | None = None
    """Where it is not called as the entry is."""
    tables: bool = False
    """The file holds tables of logits instead of images."""


def _mma_name(name: str, golden: Golden) -> str:
    match = re.fullmatch(
        r"adapter_learner\.(?:(text|visual)_adapter\.(\d+)\.(down\.0|up)|shared_adapter\.(\d+)\.0)\.(weight|bias)", name
    )
    if match is None:
        raise KeyError(name)
    tower, block, part, shared, kind = match.groups()
    if shared is not None:
        return f"middle.{int(shared) - golden.config['start']}.{kind}"
    return f"{'image' if tower == 'visual' else 'text'}.{block}.{part.removesuffix('.0')}.{kind}"


def _mma_settings(golden: Golden) -> dict[str, Any]:
    config = golden.config
    blocks = (config["start"], config["end"])
    return {"image_blocks": blocks, "text_blocks": blocks, "rank": config["dim"], "scale": config["scale"]}


def _rmadapter_settings(golden: Golden) -> dict[str, Any]:
    off = dict.fromkeys(("reconstruction_image", "reconstruction_text", "consistency_image", "consistency_text"), 0)
    return {**_mma_settings(golden), **off, "cross_modal_shared": True}


def _clip_adapter_settings(golden: Golden) -> dict[str, Any]:
    hidden, joint = golden.tensors["param.adapter.fc.0.weight"].shape
    return {"image_ratio": golden.config["ratio"], "reduction": joint // hidden}


def _multimodal_adapter_settings(golden: Golden) -> dict[str, Any]:
    config = golden.config
    width, rank = golden.tensors["param.adapter.downsampler.1.weight"].shape
    return {"ratio": config["ratio"], "mask": config["mask"], "rank": rank, "width": width}


def _replaced(*pairs: tuple[str, str]) -> Callable[[str, Golden], str]:
    """A renaming that replaces beginnings of names; one that begins in no known way is an error."""

    def rename(name: str, golden: Golden) -> str:
        for theirs, ours in pairs:
            if name.startswith(theirs):
                return ours + name.removeprefix(theirs)
        raise KeyError(name)

    return rename


def _counted(prefix: str, shift: int) -> Callable[[re.Match[str]], str]:
    return lambda match: f"{prefix}.{int(match[1]) + shift}"


# Deep prompts count blocks from 1 here; the published lists of MaPLe begin with block 2.
PROMPT_NAMES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"prompt_learner\.ctx", "context"),
    (r"prompt_learner\.meta_net\.linear1\.", "net.0."),
    (r"prompt_learner\.meta_net\.linear2\.", "net.2."),
    (r"prompt_learner\.proj\.", "coupling.1."),
    (r"prompt_learner\.compound_prompts_text\.(\d+)", _counted("text", 2)),
    (r"prompt_learner\.compound_prompt_projections\.(\d+)", _counted("coupling", 2)),
    (r"image_encoder\.VPT", "image.1"),
    (r"image_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow", _counted("image", 1)),
    (r"text_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow", _counted("text", 1)),
    (r"adapter_(image|text)\.fc\.0\.", r"\1_adapter.down."),
    (r"adapter_(image|text)\.fc\.2\.", r"\1_adapter.up."),
]


def _prompt_name(name: str, golden: Golden) -> str:
    for pattern, ours in PROMPT_NAMES:
        renamed, count = re.subn(f"^{pattern}", ours, name)
        if count:
            return renamed
    raise KeyError(name)


def _prompts(*keys: str) -> Callable[[Golden], dict[str, Any]]:
    """Settings from the header: the length, and those of ``keys`` that it has."""

    def settings(golden: Golden) -> dict[str, Any]:
        ours, config = {"n_templates": "templates", "logit_weight": "logits_weight"}, golden.config
        return {"length": config["ctx"], **{ours.get(key, key): config[key] for key in keys if key in config}}

    return settings


def _transmiter_settings(golden: Golden) -> dict[str, Any]:
    header, hidden = golden.about, len(golden.tensors["param.mlp.1.bias"])
    auxiliary = [f"name {index}" for index in range(header["all_classes"] - header["task_classes"])]
    return {
        "dimension": header["all_classes"],
        "expansion": hidden // header["all_classes"],
        "auxiliary": auxiliary,
        "teacher_temperature": header["teacher_temperature"],
        "ridge": header["ridge"],
    }


def _coprompt_settings(golden: Golden) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
        json.dump(golden.config["descriptions"], file)
    atexit.register(Path(file.name).unlink)
    return {**_prompts("depth", "weight", "image_ratio", "text_ratio")(golden), "sentences": file.name}


ENTRIES: dict[str, Entry] = {
    "zeroshot": Entry("zero_shot", lambda golden: {}, _replaced()),
    "mma": Entry("mma", _mma_settings, _mma_name),
    # RMAdapter with the cross-modal middle, without reconstruction and consistency, is MMA.
    "rmadapter": Entry("rmadapter", _rmadapter_settings, _mma_name, file="mma"),
    "clip_adapter": Entry(
        "clip_adapter",
        _clip_adapter_settings,
        _replaced(("adapter.fc.0.", "image.down."), ("adapter.fc.2.", "image.up.")),
    ),
    "multimodal_adapter": Entry(
        "multimodal_adapter",
        _multimodal_adapter_settings,
        _replaced(
            ("adapter.downsampler.", "down."),
            ("adapter.mha.in_proj_", "qkv."),
            ("adapter.mha.out_proj.", "out."),
            ("adapter.upsampler.", "up."),
        ),
    ),
    "coop": Entry("coop", _prompts(), _prompt_name),
    "cocoop": Entry("cocoop", _prompts(), _prompt_name),
    "kgcoop": Entry("kgcoop", _prompts("weight", "teacher_template"), _prompt_name),
    "maple": Entry("maple", _prompts("depth"), _prompt_name),
    "promptsrc": Entry(
        "promptsrc",
        _prompts("depth", "n_templates", "text_weight", "image_weight", "logit_weight"),
        _prompt_name,
        {"ce": "ce", "text": "consistency_text", "image": "consistency_image", "logits": "consistency_logits"},
        "fixed_text_embeddings",
    ),
    "coprompt": Entry("coprompt", _coprompt_settings, _prompt_name, teacher_text="description_features"),
    "transmiter": Entry(
        "transmiter",
        _transmiter_settings,
        _replaced(("mlp.0.", "mlp.0."), ("mlp.1.", "mlp.1."), ("mlp.4.", "mlp.3.")),
        tables=True,
    ),
}


def error(ours: Tensor, golden: Tensor) -> float:
    """Largest absolute difference, relative to the golden tensor's largest value."""
    if ours.shape != golden.shape:
        return float("inf")
    return float((ours - golden).abs().max() / golden.abs().max().clamp(min=1e-12))


def compare(folder: Path, name: str) -> dict[str, float]:
    """Relative errors of one method: logits, loss, gradients (features for zero-shot)."""
    entry = ENTRIES[name]
    golden = read(folder / f"{entry.file or name}.safetensors")
    method = method_class(entry.method)(backbone(folder), **entry.settings(golden))
    if entry.tables:
        return _compare_tables(method, golden, entry)
    with torch.no_grad():
        own = dict(method.named_parameters())
        given = {entry.rename(key, golden): value for key, value in golden.group("param.").items()}
        if own.keys() != given.keys():
            raise KeyError(f"{name}: parameters differ: {sorted(own.keys() ^ given.keys())[:4]}")
        for key, value in given.items():
            own[key].copy_(value)
    method.template = golden.config["template"]
    text = method.begin_text(golden.config["names"])
    image = method.begin("image", golden.tensors["images"])
    errors = {"logits": error(_logits(method, image, text), golden.tensors["logits"])}
    if "loss" in golden.tensors:
        teacher = _teacher(method, golden, text)
        if teacher and entry.teacher_text:
            errors["teacher"] = error(teacher.text, F.normalize(golden.tensors[entry.teacher_text], dim=-1))
        terms = method.train().terms(method(image, text), golden.tensors["labels"], teacher)
        loss = torch.stack(list(terms.values())).sum()
        loss.backward()
        if entry.terms:
            pinned = golden.group("term.")
            errors["terms"] = max(error(terms[entry.terms[key]].detach(), value) for key, value in pinned.items())
        errors["loss"] = error(loss.detach(), golden.tensors["loss"])
        errors["gradients"] = max(
            error(own[entry.rename(key, golden)].grad, value) for key, value in golden.group("grad.").items()
        )
    return errors


def _compare_tables(method: Method, golden: Golden, entry: Entry) -> dict[str, float]:
    """Relative errors of a net on logits: its own, those of the loss and its gradients, and after the transfer."""
    source, target = method, copy.deepcopy(method)
    assert isinstance(source, TransMiter) and isinstance(target, TransMiter)
    for net in (source, target):
        net.start(tuple(f"class {index}" for index in range(golden.about["task_classes"])), net.template)
    state = {entry.rename(key, golden): value for key, value in golden.group("param.").items()}
    size = len(golden.tensors["projection"])
    state |= {"base": golden.tensors["projection"], "skew": torch.zeros(size, size)}
    source.net.load_state_dict(state, strict=True)
    tables = {what: golden.tensors[f"{what}_zeroshot_logits"] for what in ("source", "target")}
    refined, teacher = source.net(tables["source"]), golden.tensors["teacher_logits"]
    loss = transfer.distillation(refined[:, : teacher.shape[1]], teacher, source.settings.teacher_temperature)
    loss.backward()
    own = dict(source.net.named_parameters())
    transfer.align(source, tables["source"], target, tables["target"])
    with torch.no_grad():
        carried, matrix = target.net(tables["target"]), target.net.matrix()
    return {
        "logits": error(refined.detach(), golden.tensors["refined_source_logits"]),
        "loss": error(loss.detach(), golden.tensors["loss"]),
        "gradients": max(
            error(own[entry.rename(key, golden)].grad, value) for key, value in golden.group("grad.").items()
        ),
        "matrix": error(matrix, golden.tensors["projection_transferred"]),
        "target": error(carried, golden.tensors["refined_target_logits"]),
    }


def _teacher(method: Method, golden: Golden, text: Rows) -> Teacher | None:
    """What the method itself makes of the file's images (the second view where there is one), names and templates."""
    if not method.needs_teacher:
        return None
    view = method.begin("image", golden.tensors.get("images_second_view", golden.tensors["images"]))
    features = method.teacher_text(golden.config["names"], text)
    step = 0
    if "description_index" in golden.tensors:  # a step at which the method draws the file's sentence
        drawn = int(golden.tensors["description_index"])
        step = next(step for step in itertools.count() if method.drawn(step, len(features)) == drawn)
    return Teacher(method.frozen("image", view), features, step)


@torch.no_grad()
def _logits(method: Method, image: Any, text: Any) -> Tensor:
    return method.eval()(image, text).features.logits


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0]) if arguments else DATA
    found = [name for name, entry in ENTRIES.items() if (folder / f"{entry.file or name}.safetensors").exists()]
    passed = 0
    for name in found:
        errors = compare(folder, name)
        good = max(errors.values()) <= LIMIT
        passed += good
        print(
            f"{name:18s} {'ok  ' if good else 'FAIL'}", "  ".join(f"{key} {value:.1e}" for key, value in errors.items())
        )
    print(f"passed {passed} of {len(found)}")
    return 0 if passed == len(found) and found else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
