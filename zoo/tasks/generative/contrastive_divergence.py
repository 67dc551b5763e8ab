"""Restricted Boltzmann machines: contrastive divergence, and likelihoods that are exact or nearly.

Hinton, 2002, https://www.cs.toronto.edu/~hinton/absps/tr00-004.pdf; Tieleman, 2008,
https://www.cs.toronto.edu/~tijmen/pcd/pcd.pdf; Salakhutdinov and Murray, 2008,
https://www.cs.toronto.edu/~rsalakhu/papers/dbn_ais.pdf
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.figures.grids import are_images
from zoo.metrics.sums import Mean, float64_on
from zoo.tasks.generative.base import GRID, Generative, sample_grid
from zoo.tasks.generative.bernoulli import bernoulli_means
from zoo.tasks.task import Image, Loss, Shown, inputs_of


class Machine(Protocol):
    """What the task asks of its model besides the free energy, which calling it gives."""

    sample_shape: tuple[int, ...]
    visible_size: int
    hidden_size: int
    weight: Tensor
    visible_bias: Tensor

    def hidden_means(self, visible: Tensor) -> Tensor: ...

    def visible_means(self, hidden: Tensor) -> Tensor: ...

    def gibbs(
        self, visible: Tensor, *, steps: int = 1, generator: torch.Generator | None = None
    ) -> Tensor: ...

    def log_partition(self) -> Tensor: ...

    def annealed_log_partition(
        self, *, base_bias: Tensor | None, chains: int, steps: int
    ) -> tuple[Tensor, Tensor]: ...


class ContrastiveDivergence(Generative):
    r"""Lowers the free energy of the data and raises that of the model's own samples.

    .. math:: L = \frac{1}{n} \sum_i F(v_i) - \frac{1}{m} \sum_j F(\tilde v_j), \qquad
        -\frac{\partial L}{\partial W} = \langle h v^\top \rangle_{\mathrm{data}} -
        \langle h v^\top \rangle_{\mathrm{chain}}

    where the :math:`\tilde v` are the ends of Gibbs chains, which the gradient does not pass
    through: the difference of two means, for any optimizer. Its value is no measure of progress.
    The chains begin at the batch's data and have ``steps`` steps (CD-k), or go on from where the
    last batch has left them (``persistent``, PCD). The first visible biases are the logits of the
    pixels' means.

    The metrics are

    - ``nll``, exact, in nats an image, where the smaller layer has at most ``max_enumerated``
      units; else ``nll_ais``, where log Z is estimated by annealed importance sampling with the
      standard error ``nll_ais_error``. The estimate of log Z is rather too low than too high, and
      ``nll_ais`` with it;
    - ``free_energy``, of which only differences between data sets mean something;
    - ``pseudo_nll``: minus the sum of the pixels' log-probabilities given all the others, as
      estimated from one pixel an image;
    - ``reconstruction_error``: squared, summed over the pixels, after one step with means.

    A batch is ``(images, ...)`` or the images alone; of pixels 0 and 1, or the figures are no
    likelihoods.

    Args:
        model: the machine; calling it gives the free energy.
        steps: Gibbs steps for each update, k.
        persistent: go on with the chains of the last update.
        num_chains: of a persistent chain; other chains are as many as the batch has images.
        max_enumerated: units of the smaller layer up to which log Z is exact, at each evaluation.
        ais_chains: independent runs of annealed importance sampling.
        ais_steps: its distributions.
        sample_steps: Gibbs steps that a sample takes from independent pixels.

    Shape:
        - images: ``(batch, *)``
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        steps: int = 1,
        persistent: bool = False,
        num_chains: int = 100,
        max_enumerated: int = 20,
        ais_chains: int = 100,
        ais_steps: int = 1000,
        sample_steps: int = 1000,
    ) -> None:
        super().__init__(model)
        for name in ("hidden_means", "visible_means", "gibbs", "log_partition", "visible_bias"):
            if not hasattr(model, name):
                raise TypeError(
                    "model must be a restricted Boltzmann machine, and "
                    f"{type(model).__name__} has no {name}"
                )
        counts = {
            "steps": steps,
            "num_chains": num_chains,
            "ais_chains": ais_chains,
            "ais_steps": ais_steps,
            "sample_steps": sample_steps,
        }
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name} must be at least 1, not {count}")
        self.machine = cast(Machine, model)
        self.steps, self.sample_steps = steps, sample_steps
        self.ais_chains, self.ais_steps = ais_chains, ais_steps
        size = self.machine.visible_size
        self.chains = torch.zeros(num_chains, size) if persistent else None
        self.base_bias = torch.zeros(size)  # logits of the pixels' means, once they are known
        self._start = self.base_bias  # what a rehearsal has put into the visible biases
        self.is_exact = min(size, self.machine.hidden_size) <= max_enumerated
        self.monitor = "nll" if self.is_exact else "nll_ais"
        self.metrics = {
            "free_energy": Mean(),
            "pseudo_nll": Mean(higher_is_better=False),
            "reconstruction_error": Mean(higher_is_better=False),
        }

    @classmethod
    def without_effect(cls, arguments: Mapping[str, Any]) -> dict[str, str]:
        if arguments["persistent"]:
            return {}
        return {"num_chains": "chains begin at the data without task.persistent=true"}

    def prepare(self, batches: Iterable[Any]) -> None:
        """Starts the visible biases at the logits of the pixels' means, unless they are trained."""
        means = bernoulli_means(inputs_of(batch) for batch in batches)
        self.base_bias = means.logit().flatten().to(self.base_bias)
        bias = self.machine.visible_bias
        if not bias.any() or torch.equal(bias, self._start):
            self._start = self.base_bias.clone()
            with torch.no_grad():
                bias.copy_(self._start)

    def loss(self, batch: Any) -> Loss:
        data = inputs_of(batch).flatten(1)  # (batch, visible)
        with torch.no_grad():
            start = data if self.chains is None else self.chains
            chains = self.machine.gibbs(start, steps=self.steps)
        if self.chains is not None:
            self.chains = chains
        return self.model(data).mean() - self.model(chains).mean(), len(data)

    def evaluate(self, batch: Any) -> None:
        data = inputs_of(batch).flatten(1)  # (batch, visible)
        energies = self.model(data)
        pixel = torch.randint(data.size(1), (len(data), 1), device=data.device)
        flipped = data.scatter(1, pixel, 1 - data.gather(1, pixel))
        pseudo = -data.size(1) * F.logsigmoid(self.model(flipped) - energies)
        means = self.machine.visible_means(self.machine.hidden_means(data))
        errors = (data - means).square().sum(1)
        self.metrics["free_energy"].update(
            energies.to(float64_on(energies.device)).mean(), len(data)
        )
        self.metrics["pseudo_nll"].update(pseudo.mean(), len(data))
        self.metrics["reconstruction_error"].update(errors.mean(), len(data))
        self.judge(inputs_of(batch))

    def compute(self) -> dict[str, float]:
        values = super().compute()
        if self.is_exact:
            log_partition = self.machine.log_partition().item()
            return {"nll": values["free_energy"] + log_partition, **values}
        log_partition, error = (
            value.item()
            for value in self.machine.annealed_log_partition(
                base_bias=self.base_bias, chains=self.ais_chains, steps=self.ais_steps
            )
        )
        nll = values["free_energy"] + log_partition
        return {"nll_ais": nll, "nll_ais_error": error, **values}

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Images of pixels 0 and 1: ends of Gibbs chains of ``sample_steps`` steps."""
        visible = self._chain_ends(count, generator)
        return visible.unflatten(1, self.machine.sample_shape)

    def draw_latents(self, count: int, generator: torch.Generator) -> Tensor:
        """Probabilities of the hidden units given images that are drawn."""
        return self.machine.hidden_means(self._chain_ends(count, generator))

    def decode(self, latents: Tensor) -> Tensor:
        """Probabilities of the pixels given hidden units, or given their probabilities."""
        return self.machine.visible_means(latents).unflatten(1, self.machine.sample_shape)

    def latents(self, inputs: Tensor) -> Tensor:
        """Probabilities of the hidden units: ``(batch, hidden_size)``."""
        return self.machine.hidden_means(inputs)

    def show(self) -> dict[str, Shown]:
        """``samples``, and ``filters``: the weights of the first hidden units, each on its own."""
        filters = self.machine.weight[:GRID].unflatten(1, self.machine.sample_shape)
        if not are_images(filters):
            return {}
        # Each filter with a scale of its own, grey where it is zero.
        largest = filters.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
        return {**super().show(), "filters": Image(sample_grid(filters / largest))}

    def to(self, device: torch.device | str) -> Self:
        self.base_bias, self._start = self.base_bias.to(device), self._start.to(device)
        if self.chains is not None:
            self.chains = self.chains.to(device)
        return super().to(device)

    def state_dict(self) -> dict[str, Any]:
        state = {"base_bias": self.base_bias}
        return state if self.chains is None else {**state, "chains": self.chains}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.base_bias = state["base_bias"].to(self.base_bias)
        if self.chains is not None:
            self.chains = state["chains"].to(self.chains)

    def _chain_ends(self, count: int, generator: torch.Generator) -> Tensor:
        bias = self.machine.visible_bias
        start = bias.sigmoid().expand(count, -1)  # probabilities: no pixel is sure yet
        return self.machine.gibbs(start, steps=self.sample_steps, generator=generator)
