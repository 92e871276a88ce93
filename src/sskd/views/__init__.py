"""Views of images, and the self-supervised questions asked about them."""

from collections.abc import Callable

from sskd.views.contrastive import Contrastive
from sskd.views.pretext import Pretext

PRETEXTS: dict[str, Callable[[], Pretext]] = {"contrastive": Contrastive}
