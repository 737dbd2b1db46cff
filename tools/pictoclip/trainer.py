"""One process of a training run: model, optimisers, data, schedule and curriculum."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path

import tokenizer as bpe
import torch
import torch.distributed as dist
from artwork import Artwork
from muon import Muon
from scenes import Composer
from tokenizers import Tokenizer
from torch import Tensor
from towers import MOST_SCALE, Proxies, build, contrast, image_features, start_patches, text_features

from rmadapter.backbones.clip import Shape
from rmadapter.backbones.preprocess import Preprocess

MODELS = Path(__file__).with_name("models.toml")

WARM_UP = 50
"""Steps over which the rates rise."""
FALL = 0.6
"""Last share of the progress over which the rates fall to ``LEAST_RATE`` of their height."""
LEAST_RATE = 0.02
WHOLE = 0.85
"""Progress from which every patch is seen, as in use."""
HARDENED = 0.5
"""Progress at which scenes are as hard as the tasks'."""
PROXY_RATE = 4.0
"""Of the proxies, in AdamW's rates."""
ADAMW_SHARE = 0.5
"""AdamW's rate in Muon's."""
MEAN, STD = (0.5, 0.5, 0.5), (0.27, 0.27, 0.27)


@dataclass(frozen=True)
class Settings:
    """What differs between sizes in training, and between experiments; see models.toml."""

    names: int
    views: int
    rate: float
    patches: float
    inked: float = 0.25
    """Share of the artwork in colours that is turned into one colour where scenes are hardest."""
    proxies: float = 1.0
    """Weight of the class-proxy loss."""


@dataclass(frozen=True)
class Plan:
    """One call of train.py; its options say what the fields mean."""

    size: str
    minutes: float
    budget: float
    images: int
    every: float
    artwork: Path
    out: Path
    seed: int
    processes: int
    changes: dict[str, float]


@dataclass
class State:
    """How far a run has come."""

    step: int = 0
    images: int = 0
    minutes: float = 0.0
    progress: float = 0.0
    loss: float = math.nan
    """Running mean of the contrastive part of the loss."""
    log: list[dict[str, float]] = field(default_factory=list)

    def place(self, plan: Plan) -> None:
        """Work out the progress under ``plan``, which may stretch a finished run's schedule."""
        self.progress = min(1.0, self.images / plan.images if plan.images else self.minutes / plan.budget)

    def count(self, plan: Plan, images: int, minutes: float, loss: float) -> None:
        """Note one step."""
        self.step += 1
        self.images += images
        self.minutes = minutes
        self.place(plan)
        self.loss = loss if math.isnan(self.loss) else 0.98 * self.loss + 0.02 * loss


def read_size(size: str, vocabulary: int) -> tuple[Shape, Settings]:
    """Shape and settings of a size in models.toml."""
    entry = tomllib.loads(MODELS.read_text(encoding="utf-8"))[size]
    return Shape.from_dict({**entry["shape"], "vocabulary": vocabulary}), Settings(**entry["train"])


def rate_at(progress: float, step: int) -> float:
    """The rate's share of its height."""
    return min(1.0, (step + 1) / WARM_UP) * min(1.0, max(LEAST_RATE, (1 - progress) / FALL))


class Trainer:
    """Model, optimisers and data of one process."""

    def __init__(self, plan: Plan, rank: int) -> None:
        self.plan, self.rank = plan, rank
        self.artwork = Artwork(plan.artwork)
        self.tokenizer = Tokenizer.from_file(str(plan.out / "tokenizer.json"))
        shape, settings = read_size(plan.size, self.tokenizer.get_vocab_size())
        self.settings = replace(settings, **plan.changes)  # type: ignore[arg-type]
        self.tokenizer.enable_padding(pad_id=0, pad_token=bpe.PAD)
        self.clip = build(shape, plan.seed)
        self.proxies = Proxies(len(self.artwork.emoji), shape.joint, plan.seed + 1)
        self.preprocess = Preprocess(shape.image_size, MEAN, STD, "bilinear", "shortest")
        self.generator = torch.Generator()
        self.composer = Composer(shape.image_size, self.generator)
        self._optimisers()
        self.state = State()

    def _optimisers(self) -> None:
        named = {f"clip.{name}": value for name, value in self.clip.named_parameters()}
        named |= {f"proxies.{name}": value for name, value in self.proxies.named_parameters()}
        matrices = {name: value for name, value in named.items() if ".blocks." in name and value.ndim == 2}
        rest = {name: value for name, value in named.items() if name not in matrices}
        self.named = named
        proxies = [value for name, value in rest.items() if name.startswith("proxies")]
        decayed = [value for name, value in rest.items() if value.ndim >= 2 and not name.startswith("proxies")]
        groups = [
            {"params": decayed, "weight_decay": 0.1, "share": ADAMW_SHARE},
            {"params": [value for value in rest.values() if value.ndim < 2], "weight_decay": 0.0, "share": ADAMW_SHARE},
            {"params": proxies, "weight_decay": 0.0, "share": ADAMW_SHARE * PROXY_RATE},
        ]
        self.muon = Muon(matrices, self.rank, self.plan.processes)
        self.adamw = torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-6, foreach=True)
        self.flat = torch.zeros(sum(value.numel() for value in named.values()) + 2)
        parts = self.flat.split([*(value.numel() for value in named.values()), 2])
        for value, part in zip(named.values(), parts, strict=False):
            value.grad = part.view_as(value)  # so that one call sums all gradients over the processes

    def start(self) -> None:
        """What a new run needs beyond CLIP's initial values."""
        self.generator.manual_seed(self.plan.seed)
        batch = self.artwork.batch(600, 2, self.generator)
        scenes = self.composer(batch.sprites, batch.mono, batch.mirrored, 0.5, self.settings.inked)
        start_patches(self.clip, self.normalise(scenes))

    def normalise(self, scenes: Tensor) -> Tensor:
        """Scenes of 0 to 1 as the image tower takes them."""
        return (scenes - MEAN[0]) / STD[0]

    def tokenize(self, texts: list[str]) -> Tensor:
        """Token ids (c, l), as long as the longest text."""
        return torch.tensor([encoded.ids for encoded in self.tokenizer.encode_batch(texts)])

    def loss(self, progress: float) -> tuple[Tensor, Tensor]:
        """The whole loss of a new batch, and its contrastive part."""
        settings = self.settings
        batch = self.artwork.batch(settings.names, settings.views, self.generator)
        hardness = min(1.0, progress / HARDENED)
        scenes = self.composer(batch.sprites, batch.mono, batch.mirrored, hardness, hardness * settings.inked)
        kept = settings.patches if progress < WHOLE else 1.0
        image = image_features(self.clip, self.normalise(scenes), kept, self.generator)
        text = text_features(self.clip, self.tokenize(batch.captions))
        scale = self.clip.logit_scale.exp()
        paired = contrast(image, text, scale)
        return paired + settings.proxies * self.proxies(image, text, batch.labels, scale), paired

    def step(self, minutes: float) -> None:
        """One step of both optimisers; ``minutes`` is how long the run has trained by this process's clock."""
        state, plan = self.state, self.plan
        self.generator.manual_seed(hash((plan.seed, state.step, self.rank)) & (2**63 - 1))
        self.flat.zero_()
        loss, paired = self.loss(state.progress)
        loss.backward()
        self.flat[-2:] = torch.tensor([minutes, paired.item()])
        if plan.processes > 1:
            dist.all_reduce(self.flat)
        self.flat /= plan.processes
        minutes, mean = self.flat[-2:].tolist()
        gradient = self.flat[:-2]
        gradient *= min(1.0, 1.0 / (gradient.norm().item() + 1e-6))
        rate = self.settings.rate * rate_at(state.progress, state.step)
        for group in self.adamw.param_groups:
            group["lr"] = rate * group["share"]
        self.adamw.step()
        self.muon.step(rate)
        with torch.no_grad():
            self.clip.logit_scale.clamp_(max=math.log(MOST_SCALE))
        images = self.settings.names * self.settings.views * plan.processes
        state.count(plan, images, minutes, mean)
