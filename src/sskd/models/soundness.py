"""Whether a network that is brought along can be what it is said to be: finite weights, and logits as outputs."""

import torch

from sskd.errors import UserError
from sskd.models.network import Network

PROBES = 2  # images of noise


def refuse_not_finite(network: Network, place: str) -> None:
    """Refuse weights that are NaN or infinite: every image would get the same answer, or none.

    Raises:
        UserError: names the first of them.
    """
    bad = [name for name, value in network.backbone.named_parameters() if not bool(value.isfinite().all())]
    for name, value in network.backbone.named_buffers():  # masks of attention are minus infinity on purpose
        running = name.endswith(("running_mean", "running_var"))
        if value.is_floating_point() and not bool(value.isfinite().all() if running else not value.isnan().any()):
            bad.append(name)
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise UserError(
            f"The weights of {place} are not finite: NaN or infinity in {', '.join(bad[:3])}{more}. Its training has "
            "diverged, or the file is damaged: give weights of an earlier epoch, or copy it again."
        )


def warn_of_probabilities(network: Network, place: str, shape: tuple[int, int, int]) -> tuple[str, ...]:
    """A warning where the network gives probabilities in place of logits: its accuracy is right, its teaching not.

    Raises:
        UserError: it cannot take images of this shape [C, H, W].
    """
    network.shapes(shape)
    if not _gives_probabilities(network, shape):
        return ()
    return (
        f"WARNING: {place} gives probabilities (its outputs sum to 1), not logits. A second softmax makes its answers "
        "almost alike: to teach, or to predict probabilities, give the network without its last softmax.",
    )


@torch.no_grad()
def _gives_probabilities(network: Network, image_shape: tuple[int, int, int]) -> bool:
    """Whether the network's outputs for images of this shape are probabilities: not negative, and with sum 1."""
    weight, was_training = next(network.parameters()), network.training
    noise = torch.rand(PROBES, *image_shape, generator=torch.Generator().manual_seed(0))
    network.eval()
    try:
        outputs = network(noise.to(weight.device, weight.dtype)).float()
    finally:
        network.train(was_training)
    several = outputs.ndim == 2 and outputs.shape[1] > 1
    return several and bool((outputs >= 0).all()) and bool(((outputs.sum(1) - 1).abs() < 1e-3).all())
