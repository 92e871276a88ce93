"""Variational information distillation, channel by channel: Ahn et al. 2019, the Gaussian variational bound."""

import torch
from torch import Tensor


def information(mean: Tensor, teacher: Tensor, log_scale: Tensor) -> Tensor:
    """Mean over all entries [B, C, H, W] of ((t - mu)^2 / v + log v) / 2; v = log(1 + exp(log_scale_c)) + 1e-5."""
    total = torch.zeros((), dtype=torch.float64)
    count = 0
    for c, scale in enumerate(log_scale.unbind()):
        variance = torch.log1p(torch.exp(scale)) + 1e-5
        for mu_image, t_image in zip(mean[:, c].unbind(), teacher[:, c].unbind(), strict=True):
            for mu, t in zip(mu_image.flatten().unbind(), t_image.flatten().unbind(), strict=True):
                total = total + ((t - mu) * (t - mu) / variance + torch.log(variance)) / 2
                count += 1
    return total / count
