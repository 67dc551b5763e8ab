"""Reliability diagrams: ``(3, height, width)`` in [0, 1]."""

from torch import Tensor

from zoo.figures.grids import render


def reliability_image(share: Tensor, confidence: Tensor, accuracy: Tensor) -> Tensor:
    """Draws how often a classifier is right when it is so sure; a perfect one is on the diagonal.

    Below, how many samples there are of each confidence.

    Args:
        share: of the samples in each of several equal bins of [0, 1], ``(bins,)``.
        confidence: mean probability of the predicted class in each bin.
        accuracy: share of correct answers in each bin.
    """
    from matplotlib.figure import Figure

    width = 1 / len(share)
    filled = share.cpu() > 0
    middles = [(number + 0.5) * width for number in range(len(share))]
    figure = Figure(figsize=(4.4, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot((0, 1), (0, 1), color="grey", linewidth=1)
    upper.bar(middles, accuracy.cpu().numpy(), width, color="tab:blue", edgecolor="white")
    means, rates = (values.cpu()[filled].numpy() for values in (confidence, accuracy))
    upper.vlines(means, means, rates, color="tab:red", label="calibration error")
    upper.scatter(means, rates, s=12, color="tab:red", zorder=3)
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    upper.legend(loc="upper left")
    lower.bar(middles, share.cpu().numpy(), width, color="0.6", edgecolor="white")
    lower.set(xlabel="probability of the predicted class", ylabel="share of samples")
    return render(figure)
