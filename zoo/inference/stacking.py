r"""Stacking: a simple model learns how to join the answers of several trained ones.

Of classifiers it is a multinomial logistic regression on the logarithms of all members'
probabilities, of regressions a ridge regression on all their values; with the features :math:`f_i`
of sample i, side by side from all members,

.. math:: \min_{W, b} \; \tfrac{1}{2} \lVert W \rVert^2 - \sum_i \log p_i(y_i), \quad
    p_i = \mathrm{softmax}(W f_i + b); \qquad
    \min_{W, b} \; \lVert W \rVert^2 + \sum_i \lVert W f_i + b - y_i \rVert^2

Unlike the weights of a mean, it may trust a member in one class and not in another. It must be
fitted to samples that the members have not been trained on: on the others all look right.

Wolpert, 1992, "Stacked generalization", https://doi.org/10.1016/S0893-6080(05)80023-1; Breiman,
1996, "Stacked regressions", https://doi.org/10.1007/BF00117832. Both fit it to the predictions of a
cross-validation; here it is a split that was held out from the training of all members.
"""

from typing import Any

import torch
from torch import Tensor, nn

from zoo.inference.ensemble import OutputKind


class Stacking(nn.Module):
    """A linear model of what the members say, as scikit-learn fits it, in double precision.

    Args:
        outputs: of the members, ``(members, samples, *)``.
        targets: class numbers ``(samples,)`` of ``logits``; of ``values`` as many numbers as a
            member returns.
        kind: what the outputs are, ``logits`` or ``values``.

    Shape:
        - input: ``(members, batch, *)``
        - output: logits or values ``(batch, *)``, as of one member

    Raises:
        ValueError: the outputs cannot be stacked, or not all classes are among the targets.
    """

    def __init__(self, outputs: Tensor, targets: Tensor, *, kind: OutputKind) -> None:
        # here, because importing it takes a second
        from sklearn.linear_model import LogisticRegression, Ridge

        super().__init__()
        self.kind, self.samples = kind, len(targets)
        features = self._features(outputs).numpy(force=True)
        wanted = targets.numpy(force=True)
        if kind == "logits":
            absent = sorted(set(range(outputs.size(-1))) - set(wanted.tolist()))
            if absent:
                raise ValueError(
                    f"stacking needs samples of every class to learn from: there is none of class "
                    f"{absent[0]}"
                )
            model: Any = LogisticRegression(max_iter=10_000, tol=1e-8).fit(features, wanted)
        elif kind == "values" and targets.numel() == outputs[0].numel():
            model = Ridge().fit(features, wanted.reshape(len(wanted), -1))
        else:
            raise ValueError("stacking joins classes, or one value for each target")
        weight = torch.from_numpy(model.coef_).reshape(-1, features.shape[1])
        bias = torch.from_numpy(model.intercept_)
        if kind == "logits" and len(bias) == 1:  # of two classes, the second one's alone
            weight, bias = (torch.cat([torch.zeros_like(part), part]) for part in (weight, bias))
        self.weight, self.bias = weight, bias

    def forward(self, outputs: Tensor) -> Tensor:
        joined = self._features(outputs) @ self.weight.T + self.bias
        dtype = torch.promote_types(outputs.dtype, torch.float32)
        return joined.reshape(outputs.shape[1:]).to(outputs.device, dtype)

    def _features(self, outputs: Tensor) -> Tensor:
        """What all members say of a sample side by side: ``(*, members * numbers)``."""
        outputs = outputs.to("cpu", torch.float64)  # which not all devices have
        if self.kind == "logits":
            outputs = outputs.log_softmax(-1)
        else:
            outputs = outputs.flatten(2) if outputs.ndim > 2 else outputs.unsqueeze(-1)
        return outputs.movedim(0, -2).flatten(-2)
