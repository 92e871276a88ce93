"""The Hugging Face hub, when there is no network: said within seconds instead of after many retries."""

import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants

from sskd.errors import UserError

SECONDS = 4.0  # that the hub has to answer


def quick_hub(name: str) -> None:
    """Return if the hub answers, or if what `name` stands for lies in the local cache, which is then used alone.

    Raises:
        UserError: neither.
    """
    if constants.HF_HUB_OFFLINE:
        return
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=SECONDS):
            return
    except urllib.error.HTTPError:
        return  # it answered
    except OSError as error:
        reason = getattr(error, "reason", error)
    repository = name.removeprefix("hf-hub:").partition("@")[0]
    if name.startswith("hf-hub:") and not isinstance(_cached(repository), str):
        raise UserError(
            f"{name} is on the Hugging Face hub, which does not answer ({reason}), and is not in the local cache "
            f"{constants.HF_HUB_CACHE}. On a machine with a network: hf download {repository} --local-dir FOLDER; "
            "then name local-dir:FOLDER here."
        )
    constants.HF_HUB_OFFLINE = True  # no retries: the cache, or a clear error, at once


def hub_folder(name: str, files: Sequence[str]) -> Path:
    """The local folder of the hub's repository `hf-hub:OWNER/NAME[@REVISION]`, with those of these files that it has.

    Raises:
        UserError: the hub does not answer, or has no such repository.
    """
    quick_hub(name)
    repository, _, revision = name.removeprefix("hf-hub:").partition("@")
    try:
        return Path(huggingface_hub.snapshot_download(repository, revision=revision or None, allow_patterns=[*files]))
    except (OSError, ValueError) as error:  # the hub's own errors are one or the other
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name} cannot be had from the Hugging Face hub: {reason}") from error


def _cached(repository: str) -> object:
    folder = Path(constants.HF_HUB_CACHE)
    return huggingface_hub.try_to_load_from_cache(repository, "config.json", cache_dir=folder)
