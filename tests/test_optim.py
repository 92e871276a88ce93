"""The optimiser: one kernel for all parameters, with the values of the plain formula."""

import torch
from torch import nn

from sskd.methods.plan import Optim
from sskd.train.optim import build_optimizer


def test_it_is_fused_and_comes_to_the_formula() -> None:
    """v = m v + g + w p; p = p - r v, or p - r (g + w p + m v) after Nesterov."""
    for nesterov in (False, True):
        torch.manual_seed(0)
        parameters = [nn.Parameter(torch.randn(5, 3, dtype=torch.float64)), nn.Parameter(torch.randn(4).double())]
        optim = Optim(lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=nesterov)
        optimizer = build_optimizer(parameters, optim)
        assert optimizer.defaults["fused"]
        values, speeds = [p.detach().clone() for p in parameters], [torch.zeros_like(p) for p in parameters]
        for _ in range(4):
            for i, parameter in enumerate(parameters):
                parameter.grad = torch.randn_like(parameter)
                full = parameter.grad + 0.01 * values[i]
                speeds[i] = 0.9 * speeds[i] + full
                values[i] = values[i] - 0.1 * (full + 0.9 * speeds[i] if nesterov else speeds[i])
            optimizer.step()
        for parameter, value in zip(parameters, values, strict=True):
            torch.testing.assert_close(parameter.detach(), value, rtol=1e-12, atol=1e-12)
