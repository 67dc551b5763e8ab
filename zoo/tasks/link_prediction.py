"""Link prediction: are two nodes of a graph linked?

Kipf and Welling, "Variational graph auto-encoders", 2016, https://arxiv.org/abs/1611.07308.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.layers.message_passing import Ends
from zoo.metrics.ranking import Ranking
from zoo.metrics.sums import Mean
from zoo.tasks.prediction import Values
from zoo.tasks.task import Loss, Task


class LinkPrediction(Task):
    r"""Cross-entropy of pairs of nodes, half of which are linked.

    .. math:: p(i \sim j) = \sigma(z_i^\top z_j), \qquad
        -\frac{1}{P} \sum_{(i,j)} \log p(y_{ij}) \; \Big[ + \frac{1}{N^2} \mathrm{KL}(q(Z) \,\|\,
        \mathcal{N}(0, I)) \Big]

    The vectors :math:`z` of the N nodes are the model's output for the graph of the training links.
    A model may also give a normal distribution for each node (VGAE): in training one sample of it
    is decoded and the divergence is added, weighed as in the authors' code, whose mean over all
    pairs, linked ones weighed up to count as much as the others, this one over as many of either
    kind estimates; in evaluation the means are decoded. Terms are then ``reconstruction`` and
    ``kl``, per node.

    A batch is ``(features, edge_index, pairs, labels, edge_weight)``, see
    `zoo/data/graphs/links.py`. The metrics are ``loss``, the cross-entropy, and ``auc`` and
    ``average_precision``, exact over the split.

    Args:
        model: features and edges to vectors, ``model(features, edge_index)``, or ``model(features,
            edge_index, edge_weight)`` where the edges have weights; or to ``(mean, logstd)``.

    Shape:
        - features: ``(nodes, in_features)``
        - edge_index: ``(2, edges)``
        - pairs: ``(2, pairs)``
        - labels: ``(pairs,)``, 1 for a link, else 0
    """

    monitor = "auc"
    mode: Literal["min", "max"] = "max"
    predicts = Values
    unit = "pairs"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.metrics = {"loss": Mean(higher_is_better=False), "ranking": Ranking()}

    def loss(self, batch: Any) -> Loss:
        found = self._encoded(batch)
        pairs, labels = batch[2:4]
        if isinstance(found, Tensor):
            loss = F.binary_cross_entropy_with_logits(_scores(found, pairs), labels)
            return loss, len(labels)
        mean, logstd = found
        z = mean + torch.randn_like(mean) * logstd.exp()
        reconstruction = F.binary_cross_entropy_with_logits(_scores(z, pairs), labels)
        kl = _divergence(mean, logstd).mean()
        terms = {"reconstruction": reconstruction.detach(), "kl": kl.detach()}
        return reconstruction + kl / len(mean), len(labels), terms

    def evaluate(self, batch: Any) -> None:
        scores, labels = self._logits(batch), batch[3]
        loss = F.binary_cross_entropy_with_logits(scores, labels)
        self.metrics["loss"].update(loss, len(labels))
        self.metrics["ranking"].update(scores, labels)

    def next_steps(self, data: Any) -> list[str]:
        return ["evaluate.py run={run} predict=<pairs.csv>"] if hasattr(data, "read_inputs") else []

    def example_inputs(self, batch: Any) -> tuple[Any, ...]:
        return tuple(part for part in (*batch[:2], *batch[4:5]) if part is not None)

    def predict(self, batch: Any) -> Values:
        """The probability of a link for every pair: ``(pairs,)``."""
        return Values(self._logits(batch).sigmoid())

    def _logits(self, batch: Any) -> Tensor:
        found = self._encoded(batch)
        return _scores(found if isinstance(found, Tensor) else found[0], batch[2])

    def _encoded(self, batch: Any) -> Tensor | tuple[Tensor, Tensor]:
        """The nodes' vectors, or their means and the logarithms of their deviations."""
        found: Tensor | tuple[Tensor, Tensor] = self.model(*self.example_inputs(batch))
        return found


def _scores(z: Tensor, pairs: Tensor) -> Tensor:
    """The inner product of each pair's vectors, float32 ``(pairs,)``."""
    # Their gradient adds up in the order of the pairs on any device, unlike that of `z[pairs]`.
    first, second = (Ends(ends, len(z)).gather(z).float() for ends in pairs)
    return (first * second).sum(1)


def _divergence(mean: Tensor, logstd: Tensor) -> Tensor:
    """That of a node's distribution from the standard normal one: ``(nodes,)``."""
    mean, logstd = mean.float(), logstd.float()
    return 0.5 * (mean.square() + (2 * logstd).exp() - 1 - 2 * logstd).sum(1)
