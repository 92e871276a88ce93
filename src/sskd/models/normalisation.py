"""How a network wants its pixels."""

import math
from dataclasses import dataclass

from sskd.errors import UserError

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R 601


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per channel, for pixels in [0, 1], and where they came from.

    Raises:
        UserError: mean and std differ in length, are not finite, or a std is not above 0: images would become NaN.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str

    def __post_init__(self) -> None:
        mean, std = self.mean, self.std
        if len(mean) != len(std) or not all(map(math.isfinite, (*mean, *std))) or not all(value > 0 for value in std):
            raise UserError(
                f"The normalisation from {self.origin} cannot be used: mean {list(mean)}, std {list(std)}. "
                "Give as many finite numbers in each as the images have channels, and a std above 0."
            )

    def of(self, channels: int) -> "Normalisation":
        """For images of another number of channels: grey repeated, or colours weighed into grey."""
        if channels == len(self.mean):
            return self
        if len(self.mean) == 1:
            return Normalisation(self.mean * channels, self.std * channels, self.origin)
        if channels == 1 and len(self.mean) == len(LUMA):
            mean, std = (sum(w * v for w, v in zip(LUMA, values, strict=True)) for values in (self.mean, self.std))
            return Normalisation((mean,), (std,), self.origin)
        return self
