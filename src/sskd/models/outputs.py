"""What networks return: a tensor of logits, or something that holds one."""

from typing import Any

from torch import Tensor


def logits_of(output: Any) -> Any:
    """The logits of what a backbone returned: a tensor itself, `["logits"]` of a dictionary, `.logits` of an object
    (as Hugging Face's models return). Anything else comes back as it is.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, dict):
        return output.get("logits", output)
    return getattr(output, "logits", output)


def described(output: Any) -> str:
    """A backbone's output in words: "a tuple (tensor [2, 10], tensor [2, 8])"."""
    kind = type(output).__name__
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    if isinstance(output, dict):
        return f"a {kind} ({', '.join(f'{key}: {_brief(value)}' for key, value in output.items())})"
    if isinstance(output, tuple | list):
        return f"a {kind} ({', '.join(map(_brief, output))})"
    return f"a {kind}"


def _brief(value: Any) -> str:
    return f"tensor {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
