"""Mixing each image of a batch with the next one, and their labels alike.

Targets come out as float ``(batch, num_classes)``: shares of classes that add up to 1. Unlike other
augmentations, what becomes of a sample depends on its batch, since its partner is the next sample
there (the first, for the last one); how the two are mixed is drawn for each sample.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.data.augmentation.base import Augmentation, float64_on
from zoo.data.augmentation.erasing import within

TABLE = 2**14  # steps of the table of quantiles; between them, lines


class Mixup(Augmentation):
    r"""Adds images, :math:`\lambda x_i + (1 - \lambda) x_j`, with :math:`\lambda \sim \mathrm{Beta}(\alpha, \alpha)`.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018,
    https://arxiv.org/abs/1710.09412. The published code draws one :math:`\lambda` for each batch;
    here, as in the paper's equation, every pair has its own.

    Args:
        num_classes: width of the targets.
        alpha: the larger, the nearer to equal shares.
    """  # noqa: E501

    num_draws = 1
    reach = 1

    def __init__(self, num_classes: int, alpha: float = 1.0) -> None:
        self.num_classes = num_classes
        self.beta = BetaQuantiles(alpha)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        return self._mix(images.float(), self.beta(draws[:, 0]))

    def apply(self, batch: tuple[Tensor, ...], draws: Tensor) -> tuple[Tensor, ...]:
        share = self.beta(draws[:, 0])
        images, targets, *others = batch
        soft = soft_targets(targets, self.num_classes)
        return (self._mix(images.float(), share), self._mix(soft, share), *others)

    def _mix(self, values: Tensor, share: Tensor) -> Tensor:
        share = share.view(-1, *[1] * (values.ndim - 1))
        return values * share + values.roll(-1, 0) * (1 - share)


class CutMix(Augmentation):
    r"""Puts a rectangle of the next image over each, and mixes the labels by their areas.

    The rectangle has the image's proportions and the share :math:`1 - \lambda` of its area, with
    :math:`\lambda \sim \mathrm{Beta}(\alpha, \alpha)`; its centre is uniform, and what of it lies
    outside the image does not count. Yun et al., "CutMix", 2019, algorithm 1,
    https://arxiv.org/abs/1905.04899. The published code draws one rectangle for each batch; here
    every image has its own.

    Args:
        num_classes: width of the targets.
        alpha: 1 makes all areas equally likely.
    """

    num_draws = 3
    reach = 1

    def __init__(self, num_classes: int, alpha: float = 1.0) -> None:
        self.num_classes = num_classes
        self.beta = BetaQuantiles(alpha)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        inside = within(images, *self.rectangles(draws, *images.shape[-2:]).unbind(1))
        return torch.where(inside, images.roll(-1, 0), images)

    def apply(self, batch: tuple[Tensor, ...], draws: Tensor) -> tuple[Tensor, ...]:
        images, targets, *others = batch
        rows, columns = images.shape[-2:]
        rectangles = self.rectangles(draws, rows, columns)
        covered = (rectangles[:, 2] * rectangles[:, 3] / (rows * columns)).unsqueeze(1)
        soft = soft_targets(targets, self.num_classes)
        mixed = torch.where(within(images, *rectangles.unbind(1)), images.roll(-1, 0), images)
        return (mixed, soft * (1 - covered) + soft.roll(-1, 0) * covered, *others)

    def rectangles(self, draws: Tensor, rows: int, columns: int) -> Tensor:
        """Top, left, height and width of each rectangle: ``(batch, 4)``, int64."""
        side = (1 - self.beta(draws[:, 0])).clamp(min=0).sqrt()
        edges = []
        for size, draw in ((rows, draws[:, 1]), (columns, draws[:, 2])):
            length = (size * side).long()
            first = (draw * size).long() - length.div(2, rounding_mode="floor")
            last = (first + length).clamp(max=size)
            first = first.clamp(min=0)
            edges.append((first, last - first))
        (top, height), (left, width) = edges
        return torch.stack((top, left, height, width), 1)


class MixupOrCutMix(Augmentation):
    """Mixup for one half of the samples and CutMix for the other, drawn for each sample.

    Args:
        num_classes: width of the targets.
        mixup: alpha of :class:`Mixup`.
        cutmix: alpha of :class:`CutMix`.
    """

    num_draws = 1 + Mixup.num_draws + CutMix.num_draws
    reach = 1

    def __init__(self, num_classes: int, *, mixup: float, cutmix: float) -> None:
        self.mixup = Mixup(num_classes, mixup)
        self.cutmix = CutMix(num_classes, cutmix)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        choice, first, second = draws.split((1, Mixup.num_draws, CutMix.num_draws), 1)
        both = self.mixup(images, first), self.cutmix(images, second)
        return torch.where(choice.view(-1, 1, 1, 1) < 0.5, *both)

    def apply(self, batch: tuple[Tensor, ...], draws: Tensor) -> tuple[Tensor, ...]:
        choice, first, second = draws.split((1, Mixup.num_draws, CutMix.num_draws), 1)
        mixed, cut = self.mixup.apply(batch, first), self.cutmix.apply(batch, second)
        images = torch.where(choice.view(-1, 1, 1, 1) < 0.5, mixed[0], cut[0])
        return (images, torch.where(choice < 0.5, mixed[1], cut[1]), *batch[2:])


def check_mixing(mixup: float, cutmix: float) -> None:
    """Refuses a negative alpha; 0 means none."""
    for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
        if not 0 <= alpha < float("inf"):
            raise ValueError(f"{name} must be 0 (none) or greater, not {alpha}")


def mixing(num_classes: int, *, mixup: float, cutmix: float) -> tuple[Augmentation, ...]:
    """What the two settings of a data module ask for: nothing, one, or either by chance."""
    if mixup > 0 and cutmix > 0:
        return (MixupOrCutMix(num_classes, mixup=mixup, cutmix=cutmix),)
    if mixup > 0:
        return (Mixup(num_classes, mixup),)
    return (CutMix(num_classes, cutmix),) if cutmix > 0 else ()


def soft_targets(targets: Tensor, num_classes: int) -> Tensor:
    """Labels as shares of classes: 1 for the label's; shares stay as they are."""
    if targets.is_floating_point():
        return targets
    return F.one_hot(targets, num_classes).float()  # (batch, num_classes)


class BetaQuantiles:
    """Turns uniform numbers into those of Beta(alpha, alpha), by a table of its inverse CDF.

    Exact at 16,385 equally spaced numbers and linear between them, which is off by less than 0.002
    for alpha up to 8 (and by far less except at the very ends).

    Args:
        alpha: greater than 0.
    """

    def __init__(self, alpha: float) -> None:
        if not 0 < alpha < float("inf"):
            raise ValueError(f"alpha must be greater than 0, not {alpha}")
        self.alpha = alpha
        self._tables: dict[torch.device, Tensor] = {}

    def __call__(self, uniform: Tensor) -> Tensor:
        """Float32, of the same shape."""
        table = self._table(uniform.device)
        precision = float64_on(uniform.device)
        place = uniform.to(precision) * TABLE
        step = place.long().clamp(max=TABLE - 1)
        rest = place - step
        before, after = table[step].to(precision), table[step + 1].to(precision)
        return (before + (after - before) * rest).float()

    def _table(self, device: torch.device) -> Tensor:
        if device not in self._tables:
            from scipy.special import betaincinv

            uniform = torch.linspace(0, 1, TABLE + 1, dtype=torch.float64)
            quantiles = betaincinv(self.alpha, self.alpha, uniform.numpy())
            self._tables[device] = torch.from_numpy(quantiles).float().to(device)
        return self._tables[device]
