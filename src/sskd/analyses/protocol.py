"""The probe's protocol: two classifiers on frozen features, chosen on validation images and tested once."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sskd.analyses.linear import Linear, best_of, fit, neighbours, voted
from sskd.data.subsets import validation_split

PENALTIES = tuple(10.0**power for power in range(1, -7, -1))  # the strongest first; each begins where the last ended
NEIGHBOURS = (1, 5, 10, 20, 50, 100, 200)


class Features(NamedTuple):
    """Frozen features of a data set, in float64 on the CPU."""

    train: Float[Tensor, "N D"]
    train_labels: Int64[Tensor, "N"]
    test: Float[Tensor, "M D"]
    test_labels: Int64[Tensor, "M"]


def measured(features: Features, names: tuple[str, ...], validation: float, seed: int) -> dict[str, Any]:
    """Both classifiers: chosen on validation images, then given all training images and measured on the test images."""
    fitted, held_out = validation_split(features.train_labels, validation, seed, names)
    test_share = torch.bincount(features.test_labels).max() / len(features.test_labels)
    return {
        "classes": len(names),
        "most_frequent_class": float(test_share),
        "protocol": {
            "features": "the input of the network's classifier in eval mode (of pixels: these), images whole",
            "dimensions": features.train.shape[1],
            "training_images": len(features.train),
            "validation_images": len(held_out),
            "test_images": len(features.test),
            "seed": seed,
            "linear": "multinomial logistic regression by L-BFGS on features brought to mean 0 and deviation 1 on the "
            "training images; penalty / 2 x squared weights, chosen on the validation images (stratified), the "
            "strongest of equals; fitted again with them, then tested once",
            "penalties": list(PENALTIES),
            "knn": "majority among the k nearest by cosine, ties to the nearest; k chosen on the validation images, "
            "the smallest of equals; then the neighbours are all training images",
        },
        "linear": _linear(features, fitted, held_out, len(names)),
        "knn": _nearest(features, fitted, held_out, len(names)),
    }


def _linear(
    features: Features, fitted: Int64[Tensor, "T"], held_out: Int64[Tensor, "V"], classes: int
) -> dict[str, Any]:
    mean, deviation = features.train.mean(0), features.train.std(0).clamp(min=1e-12)
    train, test = ((values - mean) / deviation for values in (features.train, features.test))
    labels, tried, last = features.train_labels, list[Linear](), None
    for penalty in PENALTIES:
        last = fit(train[fitted], labels[fitted], classes, penalty, last)
        tried.append(last)
    scores = [one.top1(train[held_out], labels[held_out]) for one in tried]
    best = best_of(scores)
    final = fit(train, labels, classes, PENALTIES[best], tried[best])
    return {
        "top1": final.top1(test, features.test_labels),
        "train_top1": final.top1(train, labels),
        "validation_top1": scores[best],
        "regularisation": PENALTIES[best],
        "tried": [{"penalty": penalty, "validation_top1": s} for penalty, s in zip(PENALTIES, scores, strict=True)],
    }


def _nearest(
    features: Features, fitted: Int64[Tensor, "T"], held_out: Int64[Tensor, "V"], classes: int
) -> dict[str, Any]:
    train, labels = features.train, features.train_labels
    numbers = [k for k in NEIGHBOURS if k <= len(fitted)]
    near = neighbours(train[fitted], labels[fitted], train[held_out], numbers[-1])
    scores = [_share(voted(near, k, classes), labels[held_out]) for k in numbers]
    k = numbers[best_of(scores)]
    near = neighbours(train, labels, features.test, k)
    return {
        "k": k,
        "top1": _share(voted(near, k, classes), features.test_labels),
        "validation_top1": max(scores),
        "tried": [{"k": k, "validation_top1": score} for k, score in zip(numbers, scores, strict=True)],
    }


def _share(predicted: Int64[Tensor, "N"], labels: Int64[Tensor, "N"]) -> float:
    return float((predicted == labels).double().mean())
