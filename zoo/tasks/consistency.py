"""Consistency: a network should answer the same, however a sample without a label is disturbed."""

from torch import Tensor
from torch.nn import functional as F

from zoo.tasks.pseudo_label import PseudoLabel


class Consistency(PseudoLabel):
    r"""Cross-entropy with labels and, of other samples, the distance of two answers.

    .. math:: L = \frac{1}{n} \sum_{i=1}^n -\log p_i(y_i)
        + \alpha(t)\, \frac{1}{n' K} \sum_{j=1}^{n'} \lVert p_j - \tilde p_j \rVert^2

    with the probabilities :math:`p_j` and :math:`\tilde p_j` of two passes, in each of which
    dropout is drawn anew; the first sees the augmented sample, the second the sample as it is.
    Both have gradients. The weight :math:`\alpha(t)` is that of
    :class:`~zoo.tasks.pseudo_label.PseudoLabel`, all of whose arguments it takes. The training
    curve has ``label_loss`` and ``consistency_loss``, not yet weighted.

    S. Laine, T. Aila, "Temporal ensembling for semi-supervised learning", 2017,
    https://arxiv.org/abs/1610.02242, the Pi-model. Differences from the paper: there both passes
    see augmented samples, those with labels take part in the second term too, and the weight rises
    as :math:`\exp(-5 (1 - t)^2)`.
    """

    term = "consistency_loss"

    def _loss_of_others(self, inputs: Tensor, plain: Tensor) -> Tensor:
        first, second = (self._outputs((x, None))[0].softmax(1) for x in (inputs, plain))
        return F.mse_loss(first, second)
