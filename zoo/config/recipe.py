"""The recipe of a run: its configuration as it was checked, once, and what is built from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from zoo.config.component import Component, check_component
from zoo.config.errors import ConfigError, as_cli_text, did_you_mean
from zoo.config.targets import require_packages
from zoo.training.settings import RunSettings


@dataclass(frozen=True)
class Recipe:
    """What a run is made from.

    Attributes:
        config: all of it as plain Python, as it is stored.
        settings: the fixed part.
        optimizers: by full key: `optimizer` for every network, or `optimizer.<network>`.
        callbacks: the user's own, `callbacks.extra`.
        trusted: packages of the user's that the command line named.
    """

    config: dict[str, Any]
    settings: RunSettings
    data: Component
    model: Component
    task: Component
    optimizers: dict[str, Component]
    schedule: Component
    callbacks: tuple[Component, ...]
    trusted: tuple[str, ...]

    def fill_auto(
        self, facts: dict[str, Any], found: dict[str, Any], lacks: Mapping[str, str] | None = None
    ) -> Self:
        """The recipe with what only the data know in place of each `auto`.

        Args:
            facts: what the data say of themselves, for the model and the task.
            found: values that the data have found for arguments of their own.
            lacks: why a fact is not there, by its name.

        Raises:
            ConfigError: the model or the task asks for something that these data do not have.
        """
        source = f"the data ({self.data.name})"
        data = self.data.replaced(found)
        model = self.model.fill_auto(facts, source, lacks or {})
        task = self.task.fill_auto(facts, source, lacks or {})
        nodes = {part.key: part.node for part in (data, model, task)}
        return replace(self, config=self.config | nodes, data=data, model=model, task=task)


def make_recipe(
    config: dict[str, Any], settings: RunSettings, trusted: Sequence[str] = ()
) -> Recipe:
    """Checks every component of a complete configuration; this imports torch.

    Raises:
        ConfigError: a component is wrong.
    """
    require_packages(trusted)

    def check(key: str) -> Component:
        return check_component(config[key], key, key, trusted)

    return Recipe(
        config=config,
        settings=settings,
        data=check("data"),
        model=check("model"),
        task=check("task"),
        schedule=check("schedule"),
        optimizers={
            key: check_component(node, "optimizer", key, trusted)
            for key, node in _optimizers(config["optimizer"]).items()
        },
        callbacks=tuple(
            check_component(node, "callback", f"callbacks.extra.{name}", trusted)
            for name, node in settings.callbacks.extra.items()
        ),
        trusted=tuple(trusted),
    )


def _optimizers(node: Any) -> dict[str, Any]:
    """Full key -> node: of one optimizer, or of one for each network.

    Raises:
        ConfigError: it is neither one component nor a mapping of components.
    """
    if not isinstance(node, dict) or not node or "_target_" in node:
        return {"optimizer": node}
    complete = {n: o for n, o in node.items() if isinstance(o, dict) and "_target_" in o}
    for name, other in node.items():
        if name not in complete:
            raise ConfigError(
                f"optimizer.{name}={as_cli_text(other)}: must be a mapping with _target_, an "
                f"optimizer for each network; {did_you_mean(str(name), complete, 'optimizer.')}"
            )
    return {f"optimizer.{name}": other for name, other in complete.items()}
