"""How often a network is right, class by class, and how well its confidence says so."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

BINS = 15


def calibration(probabilities: Float[Tensor, "N K"], labels: Int64[Tensor, "N"], bins: int = BINS) -> dict[str, Any]:
    """Expected calibration error and the reliability diagram: Guo et al., ICML 2017, section 2.

    Confidence is the highest probability; bins are of equal width, each with its upper edge. Empty bins hold None.
    """
    confidence, predicted = probabilities.double().max(1)
    right = (predicted == labels).double()
    place = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    count, sure, hits = (
        torch.zeros(bins, dtype=torch.float64).index_add_(0, place.cpu(), values.cpu())
        for values in (torch.ones_like(confidence), confidence, right)
    )
    ece = float((sure - hits).abs().sum() / len(labels))
    found = [
        {
            "confidence": float(sure[i] / count[i]) if count[i] else None,
            "accuracy": float(hits[i] / count[i]) if count[i] else None,
            "count": int(count[i]),
        }
        for i in range(bins)
    ]
    return {"ece": ece, "bins": found}


def per_class(
    predicted: Int64[Tensor, "N"], labels: Int64[Tensor, "N"], class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Images and top-1 accuracy of each class; None where no image is of it."""
    count = torch.bincount(labels.cpu(), minlength=len(class_names)).tolist()
    right = torch.bincount(labels[predicted == labels].cpu(), minlength=len(class_names)).tolist()
    return [
        {"class": name, "images": n, "top1": hits / n if n else None}
        for name, n, hits in zip(class_names, count, right, strict=True)
    ]
