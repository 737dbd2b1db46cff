"""RMAdapter written the plainest way, on stock open_clip modules.

Why this file exists: it is a second, independent writing of the computation. It shares no code with the package, cuts
no tokens, caches nothing and runs every block in order, so an error of the package's fast implementation has no way to
copy itself here. Tests compare values and gradients of the two.

Formula, per adapted block i (1-based, inclusive ranges per tower), x (n, tokens, D) the block's input, s the scale:

    u   = LN1(x)                                              the block's own frozen norm
    h   = act(W_dn u + b_dn)                                  D -> rank
    x'  = block(x) + s (W_up h + b_up)                        h is act(W_mid h + b_mid) here if cross_modal_shared
    r   = decoder(act(W_dn u~ + b_dn))                        rank -> hidden -> D by default; u~ = stopgrad(u)
    l   = mean (r - u~)^2                                     over samples, tokens, channels
    L   = CE(logits) + lambda1 sum_i l_image + lambda2 sum_i l_text + lambda3 mean|f - f0| + lambda4 mean|w - w0|
        + lambda5 (mean_b d(f, f0) + mean_c d(w, w0))         d: 1 - cos, or half the square of a part of the change

f (b, E), w (c, E): L2-normalised adapted image and text features; f0, w0: the frozen model's. With gradient_scale, an
identity op multiplies the gradient of s(...) by 1/s and another one that entering u by s: adapter parameters see 1/s
times the true gradient, x the true one. The reconstruction loss passes through neither op.

Sources: RMAdapter (Lin et al., AAAI 2026, arXiv 2512.06811); MMA (Yang et al., CVPR 2024): placement, op, middle.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.model import CLIP  # type: ignore[import-untyped]
from open_clip.transformer import text_global_pool  # type: ignore[import-untyped]
from torch import Tensor

Params = dict[str, Tensor]


@dataclass(frozen=True)
class Naive:
    """Settings of the naive computation; block ranges are inclusive and 1-based, None leaves a tower unadapted."""

    image_blocks: tuple[int, int] | None
    text_blocks: tuple[int, int] | None
    rank: int = 32
    hidden: int = 32
    activation: str = "relu"  # relu | gelu
    scale: float = 0.001
    gradient_scale: bool = True
    shared_down: bool = True  # False: the reconstruction has its own down projection
    reconstruction: bool = True  # False: no such branch at all, so fused has no effect either
    decoder_layers: int = 2  # 1: W h | 2: W2 act(W1 h) | 3: W3 act(W2 act(W1 h)), all with biases
    objective: str = "l2"  # l2: mean square | l1: mean absolute | cosine: mean over tokens of 1 - cos
    target: str = "normalised"  # normalised: u | raw: x
    detach: bool = True  # of the reconstruction loss's input and target
    fused: bool = False  # True: the reconstruction is also added to the block's output, inside the scaled term
    text_tokens: str = "valid"  # valid: rows up to and including the end token | all: every position
    cross_modal_shared: bool = False  # MMA's middle projection; towers paired from the top
    lambda_image: float = 10.0
    lambda_text: float = 10.0
    lambda_image_consistency: float = 10.0
    lambda_text_consistency: float = 25.0
    lambda_retention: float = 0.0
    retained: str = "direction"  # direction: 1 - cos | outside_shots: off the images' span | inside_text: in the texts'


class _ScaleGradient(torch.autograd.Function):
    """Identity whose backward multiplies the gradient by a constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.factor, None


def _block_numbers(settings: Naive, model: CLIP, tower: str) -> list[int]:
    """Return the 1-based numbers of a tower's adapted blocks, lowest first; ValueError if the tower lacks one."""
    blocks = settings.image_blocks if tower == "image" else settings.text_blocks
    if blocks is None:
        return []
    depth = len((model.visual if tower == "image" else model).transformer.resblocks)
    if not 1 <= blocks[0] <= blocks[1] <= depth:
        raise ValueError(f"{tower}_blocks {blocks} must lie within 1..{depth}, in increasing order")
    return list(range(blocks[0], blocks[1] + 1))


def make_params(model: CLIP, settings: Naive, seed: int) -> Params:
    """Draw the leaves, nn.Linear shapes, none zero; from float64 on the CPU, so alike in every dtype and device."""
    generator = torch.Generator().manual_seed(seed)
    params: Params = {}

    def add(name: str, out_features: int, in_features: int) -> None:
        for kind, shape, deviation in (("weight", (out_features, in_features), 0.2), ("bias", (out_features,), 0.3)):
            value = deviation * torch.randn(shape, generator=generator, dtype=torch.float64)
            params[f"{name}.{kind}"] = value.to(model.logit_scale).requires_grad_()

    for tower in ("image", "text"):
        width = (model.visual if tower == "image" else model).transformer.width
        for i in _block_numbers(settings, model, tower):
            add(f"{tower}.{i}.down", settings.rank, width)
            add(f"{tower}.{i}.up", width, settings.rank)
            if settings.reconstruction:
                if not settings.shared_down:
                    add(f"{tower}.{i}.private_down", settings.rank, width)
                sizes = [settings.rank] + [settings.hidden] * (settings.decoder_layers - 1) + [width]
                for j in range(settings.decoder_layers):
                    add(f"{tower}.{i}.decoder.{j}", sizes[j + 1], sizes[j])
    if settings.cross_modal_shared:
        for k in range(len(_block_numbers(settings, model, "image"))):
            add(f"middle.{k}", settings.rank, settings.rank)
    return params


def _linear(params: Params, name: str, x: Tensor, activation: str = "none") -> Tensor:
    """Return act(W x + b); the exact GELU, not its tanh form."""
    y = F.linear(x, params[f"{name}.weight"], params[f"{name}.bias"])
    return {"none": y, "relu": torch.relu(y), "gelu": F.gelu(y)}[activation]


def _reconstruct(settings: Naive, params: Params, name: str, u: Tensor) -> Tensor:
    """Run the reconstruction branch: u (n, tokens, D) -> r (n, tokens, D)."""
    h = _linear(params, f"{name}.{'down' if settings.shared_down else 'private_down'}", u, settings.activation)
    for j in range(settings.decoder_layers):
        activation = "none" if j == settings.decoder_layers - 1 else settings.activation
        h = _linear(params, f"{name}.decoder.{j}", h, activation)
    return h


def _added_term(settings: Naive, params: Params, name: str, k: int, u: Tensor) -> Tensor:
    """Return the scaled term that joins the stream after the block, the k-th (from 0) adapted one of its tower."""
    s = settings.scale
    factor = s if settings.gradient_scale and s != 0 else 1.0  # at s = 0 the op's 1/s does not exist
    u = _ScaleGradient.apply(u, factor)
    h = _linear(params, f"{name}.down", u, settings.activation)
    if settings.cross_modal_shared:
        h = _linear(params, f"middle.{k}", h, settings.activation)
    a = _linear(params, f"{name}.up", h)
    if settings.fused and settings.reconstruction:
        a = a + _reconstruct(settings, params, name, u)
    return _ScaleGradient.apply(s * a, 1 / factor)  # type: ignore[no-any-return]


def _reconstruction_loss(settings: Naive, params: Params, name: str, x: Tensor, u: Tensor, rows: Tensor) -> Tensor:
    """Return one block's mean error, a scalar, over the tokens that rows (n, tokens), boolean, selects."""
    goal = {"normalised": u, "raw": x}[settings.target]
    if settings.detach:
        u, goal = u.detach(), goal.detach()
    r, goal = _reconstruct(settings, params, name, u)[rows], goal[rows]
    similarity = F.cosine_similarity(r, goal, dim=-1)
    return {"l2": (r - goal) ** 2, "l1": (r - goal).abs(), "cosine": 1 - similarity}[settings.objective].mean()


def _features(model: CLIP, settings: Naive, params: Params, tower: str, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return a tower's L2-normalised adapted features (n, E) and the sum of its blocks' reconstruction losses."""
    if tower == "image":
        x, blocks, mask = model.visual._embeds(inputs), model.visual.transformer.resblocks, {}
        rows = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    else:
        cast = model.transformer.get_cast_dtype()
        x = model.token_embedding(inputs).to(cast) + model.positional_embedding.to(cast)
        blocks, mask = model.transformer.resblocks, {"attn_mask": model.attn_mask}
        end = inputs.argmax(dim=-1, keepdim=True)  # CLIP's end token has the largest id
        positions = torch.arange(inputs.shape[1], device=x.device).expand_as(inputs)
        rows = {"valid": positions <= end, "all": positions >= 0}[settings.text_tokens]
    numbers, total = _block_numbers(settings, model, tower), x.new_zeros(())
    for i, block in enumerate(blocks, start=1):
        y = block(x, **mask)
        if i in numbers:
            name, u = f"{tower}.{i}", block.ln_1(x)
            y = y + _added_term(settings, params, name, numbers.index(i), u)
            if settings.reconstruction:
                total = total + _reconstruction_loss(settings, params, name, x, u, rows)
        x = y
    if tower == "image":
        features = model.visual._pool(x)[0] @ model.visual.proj
    else:
        x = text_global_pool(model.ln_final(x), inputs, model.text_pool_type, model.text_eos_id)
        features = x @ model.text_projection
    return F.normalize(features, dim=-1), total


def _retention(settings: Naive, now: Tensor, before: Tensor, images: Tensor, texts: Tensor) -> Tensor:
    """Return the mean distance of features now (n, E) from before; spans by Gram-Schmidt, a row at a time."""
    if settings.retained == "direction":
        return (1 - F.cosine_similarity(now, before, dim=-1)).mean()
    basis: list[Tensor] = []
    for row in images if settings.retained == "outside_shots" else texts:
        for _ in range(2):  # once more, against what rounding left
            for axis in basis:
                row = row - (row @ axis) * axis
        if row.norm() > 1e-9:
            basis.append(row / row.norm())
    total = now.new_zeros(())
    for change in now - before:
        inside = torch.stack([change @ axis for axis in basis]).square().sum()
        total = total + (inside if settings.retained == "inside_text" else change.square().sum() - inside)
    return total / 2 / len(now)


def loss_and_logits(
    model: CLIP, settings: Naive, params: Params, images: Tensor, tokens: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    """From images (b, 3, H, W), tokens (c, context), labels (b,): logits (b, c), the terms before lambda, the loss."""
    lengths = [len(_block_numbers(settings, model, tower)) for tower in ("image", "text")]
    if settings.cross_modal_shared and lengths[0] != lengths[1]:
        raise ValueError(f"cross_modal_shared needs as many image as text blocks, not {lengths}")
    image, rec_image = _features(model, settings, params, "image", images)
    text, rec_text = _features(model, settings, params, "text", tokens)
    with torch.no_grad():
        frozen_image = model.encode_image(images, normalize=True)
        frozen_text = model.encode_text(tokens, normalize=True)
    logits = model.logit_scale.exp() * image @ text.T
    ce = F.cross_entropy(logits, labels)
    cons_image, cons_text = (image - frozen_image).abs().mean(), (text - frozen_text).abs().mean()
    loss = ce + settings.lambda_image * rec_image + settings.lambda_text * rec_text
    loss = loss + settings.lambda_image_consistency * cons_image + settings.lambda_text_consistency * cons_text
    out = {"logits": logits, "ce": ce, "loss": loss}
    spans = frozen_image, frozen_text
    retention = _retention(settings, image, frozen_image, *spans) + _retention(settings, text, frozen_text, *spans)
    out["loss"] = loss + settings.lambda_retention * retention
    out |= {"retention": retention}
    out |= {"reconstruction_image": rec_image, "reconstruction_text": rec_text}
    return out | {"consistency_image": cons_image, "consistency_text": cons_text}
