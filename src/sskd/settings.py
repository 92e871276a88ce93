"""What a training needs to be told: plain values that a command line, a YAML file and a config can hold."""

from dataclasses import dataclass, field
from typing import Literal

from sskd.errors import UserError
from sskd.methods.plan import Optim


@dataclass(frozen=True)
class Training:
    """How a network is trained, whichever method trains it.

    Args:
        epochs: passes over the training images; the length of the main stage.
        batch_size: images a step, not counting views; all images where there are fewer.
        optim: SGD and its learning rate.
        seed: of initial weights and of everything random in the training.
        validation: share (below 1) or number of training images cut off first, stratified; 0 for none. The best
            epoch is chosen on them.
        split_seed: of the cuts of the data, apart from `seed`, so that several seeds train on the same images.
        evaluate_every: epochs between two evaluations, each followed by a checkpoint.
        flip: probability of a horizontal flip, one for all views of an image.
        padding: pixels of zero padding on each side, from which each view is cut at random.
        square: images that are not square are refused, or cropped to their centre: rotated views need squares.
        device: auto, cpu, cuda or cuda:N.
        precision: auto measures fp32 and bf16 (networks under autocast; weights and losses stay fp32) at the start
            and writes the faster into the config.
        channels_last: memory format of images and weights; measured like precision where it is not given.
        compiled: compile the training step as one graph (torch.compile).
        threads: of the CPU; torch's choice where it is not given.
        tensorboard: write curves to RUN/tensorboard, if TensorBoard is installed.
    """

    epochs: int = 240
    batch_size: int = 64
    optim: Optim = field(default_factory=Optim)
    seed: int = 0
    validation: float = 0.1
    split_seed: int = 0
    evaluate_every: int = 1
    flip: float = 0.5
    padding: int = 4
    square: Literal["refuse", "crop"] = "refuse"
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp64"] = "auto"
    channels_last: bool | None = None
    compiled: bool = False
    threads: int | None = None
    tensorboard: bool = True

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "evaluate_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1; got {getattr(self, name)}.")
        for name in ("padding", "validation"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} must not be negative; got {getattr(self, name)}.")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"threads must be at least 1; got {self.threads}.")
        if not 0 <= self.flip <= 1:
            raise UserError(f"flip is a probability, from 0 to 1; got {self.flip}.")
