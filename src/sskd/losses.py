"""The losses of all methods, on tensors, for any training loop.

Losses that compare several stages take a list of feature maps [B, C, H, W] of each network, from shallow to deep; the
others take one tensor of each: logits [B, K], or features [B, D] as the classifier gets them. They return the
unweighted mean over the batch (`SSKDLoss` its weighted sum and the terms). Those with parameters (`CCLoss`,
`VIDLoss`, `FitNetLoss`, `ABLoss`, `CRDLoss`, `ReviewKDLoss`) are modules to be moved to the device and given to the
optimizer.

Example:
    >>> from sskd.losses import KDLoss
    >>> loss = KDLoss(temperature=4.0)(torch.randn(8, 10), torch.randn(8, 10))
    >>> loss.shape
    torch.Size([])
"""

from sskd.methods.ab import ABLoss
from sskd.methods.at import ATLoss
from sskd.methods.cc import CCLoss
from sskd.methods.crd_loss import CRDLoss, CRDQueueLoss
from sskd.methods.crld_loss import CRLDLoss
from sskd.methods.dist import DISTLoss
from sskd.methods.dkd import DKDLoss
from sskd.methods.fitnet import FitNetLoss
from sskd.methods.fsp import FSPLoss
from sskd.methods.ft import FTLoss, Paraphraser, Translator
from sskd.methods.irg import IRGLoss
from sskd.methods.kdsvd import KDSVDLoss
from sskd.methods.logits import KDLoss
from sskd.methods.nst import NSTLoss
from sskd.methods.pkt import PKTLoss
from sskd.methods.reviewkd import ReviewKDLoss
from sskd.methods.rkd import RKDLoss
from sskd.methods.rld import RLDLoss
from sskd.methods.sp import SPLoss
from sskd.methods.sskd_loss import ProjectionHead, SSKDHeadLoss, SSKDLoss, rotated_views
from sskd.methods.vid import VIDLoss
from sskd.methods.wttm import WTTMLoss

__all__ = [
    "ABLoss",
    "ATLoss",
    "CCLoss",
    "CRDLoss",
    "CRDQueueLoss",
    "CRLDLoss",
    "DISTLoss",
    "DKDLoss",
    "FSPLoss",
    "FTLoss",
    "FitNetLoss",
    "IRGLoss",
    "KDLoss",
    "KDSVDLoss",
    "NSTLoss",
    "PKTLoss",
    "Paraphraser",
    "ProjectionHead",
    "RKDLoss",
    "RLDLoss",
    "ReviewKDLoss",
    "SPLoss",
    "SSKDHeadLoss",
    "SSKDLoss",
    "Translator",
    "VIDLoss",
    "WTTMLoss",
    "rotated_views",
]
