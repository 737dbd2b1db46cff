"""Zero-shot CLIP: the frozen backbone with a prompt a class, and nothing that trains.

Source: Radford et al., ICML 2021. logits = exp(scale) f t^T, with f (b, d) and t (c, d) L2-normalised.
"""

from __future__ import annotations

from rmadapter.method import Method


class ZeroShot(Method):
    """The identity at every seam. It has no settings."""

    name = "zero_shot"
    source = "Radford et al., ICML 2021"
