"""One address for randomness: (seed, stage, epoch, step)."""

import hashlib

import torch


def mix(*address: int | str) -> int:
    """A seed from an address; neighbouring addresses give unrelated seeds."""
    return int.from_bytes(hashlib.sha256(repr(address).encode()).digest()[:8], "big") >> 1


def generator_at(*address: int | str) -> torch.Generator:
    """A CPU generator seeded from an address."""
    return torch.Generator().manual_seed(mix(*address))
