"""Pretexts by name: of this package, or of any module."""

import inspect
from collections.abc import Callable, Sequence

from sskd.data.source import DataInfo
from sskd.errors import UserError, unknown
from sskd.importing import import_attribute
from sskd.views import PRETEXTS
from sskd.views.pretext import Pretext
from sskd.views.transformations import ROTATION, transformations_of


def pretext_of(
    name: str, transformations: str | Sequence[str], answers: int, data: DataInfo
) -> tuple[Pretext, tuple[str, ...]]:
    """The pretext of this name, or MODULE:CLASS, ready to be asked of this data; and what is worth saying of it.

    `transformations` and `answers` go to pretexts whose constructors take them.

    Raises:
        UserError: an unknown name; a class that is not there; options or data that do not fit the pretext.
    """
    make = find_pretext(name)
    takes = inspect.signature(make).parameters
    views, notes = transformations_of(transformations, data.image_shape[0])
    given = {"transformations": views, "answers": answers}
    if "transformations" not in takes and views != ROTATION:
        able = [known for known, one in PRETEXTS.items() if "transformations" in inspect.signature(one).parameters]
        raise UserError(
            f"The pretext {name} makes views of its own; transformations are for {', '.join(able)}. "
            "Leave one of the two out."
        )
    pretext = make(**{option: value for option, value in given.items() if option in takes})
    pretext.prepare(data)
    return pretext, notes


def find_pretext(name: str) -> Callable[..., Pretext]:
    """The constructor of the pretext of this name, or of MODULE:CLASS.

    Raises:
        UserError: an unknown name; a class that is not there, or is no pretext.
    """
    if name in PRETEXTS:
        return PRETEXTS[name]
    if ":" not in name:
        raise unknown("pretext", name, PRETEXTS)
    form = "Say MODULE:CLASS, of a module in the working folder or on Python's path."
    found = import_attribute(name, f"pretext {name}", form)
    if not (isinstance(found, type) and issubclass(found, Pretext)):
        raise UserError(f"The pretext {name} is not derived from sskd.views.pretext.Pretext.")
    return found
