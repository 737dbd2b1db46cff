"""RMAdapter against a naive, independent writing of it on stock open_clip modules: every value, every gradient."""

import pytest
import torch

from reference.naive_rmadapter import Naive, loss_and_logits, make_params
from rmadapter.method import Teacher
from rmadapter.methods.rmadapter import RMAdapter
from small import small_pair

# Our setting -> the reference's; those with the same name are left out.
NAMES = {
    "reconstruction_image": "lambda_image",
    "reconstruction_text": "lambda_text",
    "consistency_image": "lambda_image_consistency",
    "consistency_text": "lambda_text_consistency",
    "retention": "lambda_retention",
}
BASE = {"image_blocks": (2, 4), "text_blocks": (2, 3), "rank": 5, "hidden": 7, "scale": 0.5}
VARIANTS = {
    "default": {},
    "published scale": {"scale": 0.001},
    "no gradient scale": {"gradient_scale": False},
    "gelu": {"activation": "gelu"},
    "private down": {"shared_down": False},
    "one layer": {"decoder_layers": 1},
    "three layers": {"decoder_layers": 3},
    "l1": {"objective": "l1"},
    "cosine": {"objective": "cosine"},
    "raw target": {"target": "raw"},
    "raw cosine": {"target": "raw", "objective": "cosine"},
    "not detached": {"detach": False},
    "not detached, raw": {"detach": False, "target": "raw"},
    "private, not detached": {"shared_down": False, "detach": False},
    "fused": {"fused": True},
    "fused, private": {"fused": True, "shared_down": False},
    "fused, not detached": {"fused": True, "detach": False},
    "all tokens": {"text_tokens": "all"},
    "all tokens, raw l1": {"text_tokens": "all", "target": "raw", "objective": "l1"},
    "shared middle": {"cross_modal_shared": True, "text_blocks": (1, 3)},
    "shared middle, fused": {"cross_modal_shared": True, "text_blocks": (1, 3), "fused": True},
    "first block": {"image_blocks": (1, 4), "text_blocks": (1, 3)},
    "not the last block": {"image_blocks": (2, 3), "text_blocks": (1, 2)},
    "one block": {"image_blocks": (4, 4), "text_blocks": (3, 3)},
    "other weights": {
        "reconstruction_image": 0.5,
        "reconstruction_text": 2.0,
        "consistency_image": 3.0,
        "consistency_text": 0.25,
    },
    "direction": {"retention": 3.0},
    "outside the shots": {"retention": 3.0, "retained": "outside_shots"},
    "inside the texts": {"retention": 3.0, "retained": "inside_text"},
}
CLASSES = ["cat", "red panda", "hot air balloon", "t-shirt", "Boeing 747-400"]


def relative(ours: torch.Tensor, reference: torch.Tensor) -> float:
    ours, reference = ours.detach(), reference.detach()
    return float((ours - reference).abs().max() / reference.abs().max().clamp(min=1e-12))


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("quick_gelu", [True, False], ids=["quick_gelu", "gelu_towers"])
def test_values_and_gradients(changes: dict, quick_gelu: bool) -> None:
    # In float64: the gradient of l1 is a sign, which rounding flips in float32.
    model, backbone = small_pair(quick_gelu=quick_gelu)
    model.double()
    backbone.clip.double()
    settings = {**BASE, **changes}
    naive = Naive(**{NAMES.get(key, key): value for key, value in settings.items()})
    params = make_params(model, naive, seed=3)

    method = RMAdapter(backbone, **settings).double()
    assert dict(method.named_parameters()).keys() == params.keys()
    method.load_state_dict({key: value.detach() for key, value in params.items()}, strict=True)

    generator = torch.Generator().manual_seed(5)
    images = torch.randn(4, 3, 32, 32, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 3, 1, 4])
    tokens = backbone.tokenize([f"a photo of a {name}." for name in CLASSES])
    expected = loss_and_logits(model, naive, params, images, tokens, labels)
    expected["loss"].backward()

    image, text = method.begin("image", images), method.begin_text(CLASSES)
    output = method.train()(image, text)
    teacher = Teacher(method.frozen("image", image), method.frozen("text", text))
    terms = method.terms(output, labels, teacher)
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()

    assert relative(output.features.logits, expected["logits"]) < 1e-5
    assert relative(loss, expected["loss"]) < 1e-5
    weights = {name: getattr(method.settings, name) for name in NAMES} | {"ce": 1.0}
    if not method.settings.retention:
        del weights["retention"]
    assert terms.keys() == weights.keys()
    for name, term in terms.items():
        assert relative(term, weights[name] * expected[name]) < 1e-5, name
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert relative(parameter.grad, params[name].grad) < 1e-5, name
    with torch.no_grad():  # the same in evaluation, where the reconstruction branch does not run
        assert relative(method.eval()(image, text).features.logits, expected["logits"]) < 1e-5
    assert all(parameter.grad is None for parameter in backbone.clip.parameters())


def test_without_reconstruction_and_consistency() -> None:
    model, backbone = small_pair()
    off = dict.fromkeys(NAMES, 0.0)
    naive = Naive(**BASE, reconstruction=False, **{NAMES[key]: value for key, value in off.items()})
    params = make_params(model, naive, seed=3)
    method = RMAdapter(backbone, **BASE, **off)
    method.load_state_dict({key: value.detach() for key, value in params.items()}, strict=True)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([1, 0])
    expected = loss_and_logits(
        model, naive, params, images, backbone.tokenize(["a photo of a cat.", "a photo of a dog."]), labels
    )
    assert not method.needs_teacher
    terms = method.train().terms(method(method.begin("image", images), method.begin_text(["cat", "dog"])), labels, None)
    assert terms.keys() == {"ce"}
    assert relative(terms["ce"], expected["ce"]) < 1e-5
