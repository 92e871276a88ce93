"""Small tensors on their way to the device."""

import torch
from torch import Tensor


def sent(values: Tensor, device: torch.device) -> Tensor:
    """The values on the device. From page-locked memory, so that the host does not wait for a GPU to take them."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
