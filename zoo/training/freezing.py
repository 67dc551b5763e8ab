"""Parameters that are not trained, and normalisation layers that stay with them."""

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn


def freeze(model: nn.Module, patterns: Sequence[str]) -> str:
    """Takes parameters out of the training, before optimizers are made.

    Batch normalisation whose parameters are all frozen also keeps its running statistics, see
    :func:`training_mode`.

    Args:
        model: whose parameters to freeze.
        patterns: of their names, where `*` stands for anything: `features.*`. Those that match
            `!pattern` are excepted, whatever the order.

    Returns:
        What is frozen, in one line; empty without patterns.

    Raises:
        ValueError: a pattern matches nothing, or nothing is left to train.
    """
    if not patterns:
        return ""
    # Shared parameters have several names.
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern.removeprefix("!")) for name in names):
            raise ValueError(f"freeze={pattern}: no parameter matches; {_nearest(pattern, model)}")
    chosen = [pattern for pattern in patterns if not pattern.startswith("!")]
    excepted = [pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")]
    if not chosen:
        raise ValueError(f"freeze={patterns[0]}: excepts parameters from nothing; add '*'")
    for name, parameter in model.named_parameters(remove_duplicate=False):
        matches = any(fnmatchcase(name, pattern) for pattern in chosen)
        if matches and not any(fnmatchcase(name, pattern) for pattern in excepted):
            parameter.requires_grad_(False)
    sizes = {True: 0, False: 0}
    for parameter in model.parameters():
        sizes[parameter.requires_grad] += parameter.numel()
    if not sizes[True]:
        raise ValueError(
            f"freeze={','.join(patterns)}: leaves nothing to train; except the last layer, as in "
            f"!{names[-1].rpartition('.')[0]}.*"
        )
    still = sum(has_frozen_norm(module) for module in model.modules())
    norms = f"; {still} normalisation layers keep their statistics" if still else ""
    return f"frozen: {sizes[False]:,} of {sum(sizes.values()):,} parameters{norms}"


def has_frozen_norm(module: nn.Module) -> bool:
    """Whether a module is a batch normalisation none of whose parameters is trained."""
    parameters = list(module.parameters(recurse=False))
    is_norm = isinstance(module, nn.modules.batchnorm._NormBase)
    return is_norm and bool(parameters) and not any(p.requires_grad for p in parameters)


def training_mode(model: nn.Module) -> None:
    """Puts a model into training mode, but for batch normalisations that are frozen.

    Statistics that moved would change what the frozen layers behind them see.
    """
    model.train()
    for module in model.modules():
        if has_frozen_norm(module):
            module.eval()


def _nearest(pattern: str, model: nn.Module) -> str:
    """Names that were perhaps meant, of parameters and of what stands for a whole layer."""
    layers = [f"{name}.*" for name, _ in model.named_modules() if name]
    names = [*layers, *(name for name, _ in model.named_parameters())]
    plain = pattern.removeprefix("!")
    near = get_close_matches(plain, names, n=3, cutoff=0.5)
    # A layer's name without the star is the likeliest mistake.
    near = [name for name in (f"{plain}.*",) if name in layers] or near
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    some = [name for name, _ in model.named_children()]
    return f"the model has {', '.join(f'{name}.*' for name in some) or ', '.join(names)}"
