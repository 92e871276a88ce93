"""sskd: small image classifiers from big ones."""

from sskd.models import zoo as zoo  # registers the zoo with timm

__version__ = "0.1.0"
