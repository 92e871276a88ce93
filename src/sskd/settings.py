"""What a training needs to be told: plain values that a command line, a YAML file and a config can hold."""

import math
from dataclasses import dataclass, field
from typing import Literal

from sskd.errors import UserError
from sskd.optim import Optim
from sskd.ranges import LARGEST_SIDE, need_between, need_device, need_few


@dataclass(frozen=True)
class Training:
    """How a network is trained, whichever method trains it.

    Args:
        epochs: passes over the training images; the length of the main stage.
        batch_size: images a step, not counting views; all images where there are fewer.
        optim: SGD and its learning rate.
        seed: of initial weights and of everything random in the training.
        validation: share (below 1) or number of training images cut off first, stratified; 0 for none. The best
            epoch is chosen on them. Where it is not given: the data set's own validation split, else a tenth, or
            nothing where a class has too few images. It comes on top of few labels (fraction, per_class), not out of
            them: a run says both counts.
        split_seed: of the cuts of the data, apart from `seed`, so that several seeds train on the same images.
        per_class: images of each class to train on, drawn by split_seed; all, or those of fraction, where it is not
            given.
        noise: share of the training labels that are made wrong, drawn by split_seed, so that all seeds and methods,
            and a teacher trained alike, get the same wrong labels. Those of validation and test stay right.
        noise_kind: a wrong label is drawn from all other classes (symmetric), or is the next class (pair-flip).
        evaluate_every: epochs between two evaluations, each followed by a checkpoint.
        checkpoint_every: seconds between two checkpoints within long epochs.
        crop: padded cuts each view out of the image with zeros around it, as published for 32 pixels; resized cuts
            a random box and resizes it, for photographs; auto goes by the size of the images.
        size: pixels, the side of the images that networks see; the images' own, or 224 for photographs.
        flip: probability of a horizontal flip, one for all views of an image.
        padding: pixels of zero padding on each side (crop padded).
        scale: lowest and highest share of the image's area in a random box (crop resized).
        decode: photographs are decoded once into memory, reduced to 8/7 of size, or anew in each epoch by workers;
            auto decodes once what then takes at most 2 GiB.
        workers: processes that decode; as many as there are cores, up to 8, where it is not given.
        device: auto, cpu, cuda or cuda:N.
        precision: auto measures fp32 and bf16 (networks under autocast; weights and losses stay fp32) at the start
            and writes the faster into the config.
        channels_last: memory format of images and weights; measured like precision where it is not given.
        compiled: compile the training step as one graph (torch.compile); where it is not given, runs that are long
            enough measure it and keep what is faster.
        captured: on a GPU, one process: replay the whole training step as one CUDA graph, where it can be recorded.
        micro_batch: images of a process that are run at a time, where its part of a batch takes too much memory; the
            loss is still that of the whole batch. Batch norms then use the statistics of so many images. 0 for all.
        recompute: keep less in memory: the student's blocks keep their inputs alone and run again in the backward
            pass (activation checkpointing). The same numbers, for one more forward pass; the step is not compiled.
        threads: of the CPU; torch's choice where it is not given.
        relations: where torchrun has started several processes, terms that relate images see the whole batch (global)
            or only those of their own process (per_device). batch_size is that of all processes together.
        batch_norm: with several processes, statistics of the images of each (per_device) or of all (synchronised).
        tensorboard: write curves to RUN/tensorboard, if TensorBoard is installed.

    Raises:
        UserError: a value outside its range.
    """

    epochs: int = 240
    batch_size: int = 64
    optim: Optim = field(default_factory=Optim)
    seed: int = 0
    validation: float | None = None
    split_seed: int = 0
    per_class: int | None = None
    noise: float = 0.0
    noise_kind: Literal["symmetric", "pair-flip"] = "symmetric"
    evaluate_every: int = 1
    checkpoint_every: float = 600.0
    crop: Literal["auto", "padded", "resized"] = "auto"
    size: int | None = None
    flip: float = 0.5
    padding: int = 4
    scale: tuple[float, float] = (0.08, 1.0)
    decode: Literal["auto", "once", "workers"] = "auto"
    workers: int | None = None
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp64"] = "auto"
    channels_last: bool | None = None
    compiled: bool | None = None
    captured: bool = True
    micro_batch: int = 0
    recompute: bool = False
    threads: int | None = None
    relations: Literal["global", "per_device"] = "global"
    batch_norm: Literal["per_device", "synchronised"] = "per_device"
    tensorboard: bool = True

    def __post_init__(self) -> None:
        for name in ("batch_size", "evaluate_every"):
            need_between(name, getattr(self, name), 1)
        for name in ("epochs", "micro_batch", "padding", "validation"):
            need_between(name, getattr(self, name), 0)
        need_between("checkpoint_every", self.checkpoint_every, 0, math.inf)
        need_between("size", self.size, 1, LARGEST_SIDE)
        need_device(self.device)
        need_few("threads", self.threads, 1)
        need_few("workers", self.workers, 0)
        if not 0 <= self.flip <= 1:
            raise UserError(f"flip is a probability, from 0 to 1; got {self.flip}.")
        if not 0 <= self.noise < 1:
            raise UserError(f"The noise is {self.noise}; expected the share of wrong labels, from 0 to below 1.")
        if self.per_class is not None and self.per_class < 1:
            raise UserError(f"per_class is {self.per_class}; expected the number of images of each class, at least 1.")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(
                f"scale is the lowest and highest share of the area to cut out, in (0, 1]; got {list(self.scale)}."
            )
