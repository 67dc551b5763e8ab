"""The models by name: what `configs/model` lists, built without a run."""

from fnmatch import fnmatchcase
from typing import Any

import yaml
from torch import nn

from zoo.config.component import check_component
from zoo.config.errors import ConfigError, did_you_mean, one_line
from zoo.config.paths import CONFIGS
from zoo.training.pretrained import load_pretrained


def list_models(pattern: str = "*") -> list[str]:
    """The names of the models, sorted.

    Args:
        pattern: only names that match, with the shell's wildcards: ``"res*"``.
    """
    names = (file.stem for file in (CONFIGS / "model").glob("*.yaml"))
    return sorted(name for name in names if fnmatchcase(name, pattern))


def create_model(name: str, **arguments: Any) -> nn.Module:
    """A model with new weights, in training mode.

    Sizes that a run takes from its data (classes, channels, tokens) have the builder's defaults
    unless they are given.

    Args:
        name: one of :func:`list_models`.
        arguments: of its builder, for example ``num_classes=10``; the others are those of
            ``configs/model/<name>.yaml``. ``weights="resnet18.pth"`` loads a file of weights.

    Raises:
        ConfigError: there is no such model or argument, a value is wrong, or a size without a
            default is missing.
    """
    if name not in list_models():
        raise ConfigError(f"there is no model {name!r}; {did_you_mean(name, list_models())}")
    file = CONFIGS / "model" / f"{name}.yaml"
    node: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    node = {key: value for key, value in node.items() if value != "auto"} | arguments
    component = check_component(node, "model", name)
    model: nn.Module = component.build()
    if (weights := component.options.get("weights")) is not None:
        try:
            entry = component.options.get("weights_entry")
            load_pretrained(model, weights, num_classes=arguments.get("num_classes"), entry=entry)
        except ValueError as error:
            raise ConfigError(f"{name}.weights={one_line(error)}") from error
    return model
