"""Views of images, and the self-supervised questions asked about them."""

from collections.abc import Callable

from sskd.views.contrastive import Contrastive
from sskd.views.exemplar import Exemplar
from sskd.views.jigsaw import Jigsaw
from sskd.views.pretext import Pretext
from sskd.views.rotation import Rotation

PRETEXTS: dict[str, Callable[..., Pretext]] = {
    "contrastive": Contrastive,
    "rotation": Rotation,
    "jigsaw": Jigsaw,
    "exemplar": Exemplar,
}
"""By name. A pretext whose constructor takes `transformations` is given the views that a user asks for."""
