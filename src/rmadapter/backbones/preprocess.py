"""How a backbone wants its images: size, crop, interpolation, mean and standard deviation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from rmadapter.errors import BackboneError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

STRIP = 100
"""Long side over short side from which an image is resized where it is looked at only: beyond any photo."""


@dataclass(frozen=True)
class Preprocess:
    """Evaluation preprocessing, and what training needs to know of it."""

    size: int
    """Pixels of the square input."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bicubic", "bilinear"]
    resize: Literal["shortest", "squash"]
    """shortest: the short side becomes ``size``, then the centre is cropped; squash: both sides become ``size``."""

    @classmethod
    def from_open_clip(cls, config: dict[str, Any], source: str) -> Preprocess:
        """From open_clip's preprocessing config; a mode that is not handled is an error."""
        size = config["size"]
        height, width = (size, size) if isinstance(size, int) else size
        if (
            height != width
            or config["interpolation"] not in ("bicubic", "bilinear")
            or config["resize_mode"] not in ("shortest", "squash")
        ):
            raise BackboneError(f"{source}: preprocessing is not supported", got=config)
        return cls(height, tuple(config["mean"]), tuple(config["std"]), config["interpolation"], config["resize_mode"])

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocess:
        """The inverse of ``to_dict``."""
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    def __call__(self, image: Image) -> Tensor:
        """An RGB image to pixels (3, size, size) in uint8: resized (antialiased) and cropped, not normalised."""
        from torchvision.transforms.v2 import functional as T

        if self.resize == "shortest" and max(image.size) > STRIP * min(image.size):
            return cast("Tensor", T.pil_to_tensor(self._centre(image)))
        side: list[int] = [self.size] if self.resize == "shortest" else [self.size, self.size]
        image = T.center_crop(T.resize(image, side, interpolation=self.mode), [self.size, self.size])
        return cast("Tensor", T.pil_to_tensor(image))

    def _centre(self, image: Image) -> Image:
        """The centre of the resized image, without the rest, which for a strip of pixels may not fit into memory."""
        from PIL.Image import Resampling

        long = max(image.size)
        resized = int(self.size * long / min(image.size))  # torchvision's lengths and offsets
        start = round((resized - self.size) / 2) * long / resized
        end = start + self.size * long / resized
        wide = image.width == long
        box = (start, 0, end, image.height) if wide else (0, start, image.width, end)
        return image.resize((self.size, self.size), Resampling[self.interpolation.upper()], box=box)

    @property
    def mode(self) -> Any:
        """Torchvision's name of the interpolation."""
        from torchvision.transforms.v2 import InterpolationMode

        return InterpolationMode(self.interpolation)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels (b, 3, s, s) in uint8 to float32 as the image tower takes them."""
        mean = torch.tensor(self.mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(3, 1, 1)
        return (pixels.to(torch.float32) / 255 - mean) / std
