"""The words of a command line: flags, options that Hydra must not parse, and overrides."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from zoo.config.errors import ConfigError, did_you_mean

Default = TypeVar("Default")

FLAGS = ("--help", "--version", "--multirun", "--cfg", "--config-dir")


@dataclass
class CommandLine:
    """What the user asked for.

    Attributes:
        overrides: words for Hydra: `group=option`, `key=value`.
        options: `resume`, `run`, ...: taken as they are, whatever characters they hold.
        trusted: packages whose components may be built.
        flags: the flags given, long form, with their values ("" where they take none).
    """

    overrides: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    trusted: tuple[str, ...] = ()
    flags: dict[str, str] = field(default_factory=dict)

    def also(self) -> list[str]:
        """The words besides the overrides that the same configuration needs again."""
        folder = self.flags.get("--config-dir")
        words = [] if folder is None else ["--config-dir", folder]
        return [*words, f"trusted=[{','.join(self.trusted)}]"] if self.trusted else words

    def integer(self, key: str, default: Default, *, least: int) -> int | Default:
        """An integer among the `options`.

        Raises:
            ConfigError: it is not one, or too small.
        """
        text = self.options.get(key)
        if text is None:
            return default
        if not text.isdecimal() or int(text) < least:
            raise ConfigError(f"{key}={text}: must be a whole number, at least {least}")
        return int(text)

    def number(self, key: str, default: Default) -> float | Default:
        """A number among the `options`; the caller checks its range.

        Raises:
            ConfigError: it is not one.
        """
        text = self.options.get(key)
        try:
            return default if text is None else float(text)
        except ValueError:
            raise ConfigError(f"{key}={text}: must be a number") from None


_SHORT = {"-h": "--help", "-m": "--multirun", "-c": "--cfg", "-cd": "--config-dir"}


def parse_words(
    words: Sequence[str], *, options: Sequence[str], flags: Sequence[str]
) -> CommandLine:
    """Sorts the words of a command line.

    Args:
        words: `sys.argv[1:]`.
        options: names whose values are taken literally.
        flags: the flags that this program knows.

    Raises:
        ConfigError: an unknown flag, a missing value, or an option given twice.
    """
    line = CommandLine()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key, equals, value = word.partition("=")
        if word.startswith("-"):
            name = _SHORT.get(key, key)
            if name not in flags:
                raise ConfigError(f"{word}: there is no such flag; {did_you_mean(name, flags)}")
            if name in line.flags:
                raise ConfigError(f"{word}: {name} is given twice")
            takes_value = name in ("--cfg", "--config-dir")
            if equals and not takes_value:
                raise ConfigError(f"{word}: {name} takes no value")
            if takes_value and not equals:
                value = rest.pop(0) if rest and not rest[0].startswith("-") else ""
            if takes_value and not value:
                example = "job" if name == "--cfg" else "my_configs"
                raise ConfigError(f"{word} needs a value, such as {name} {example}")
            if name == "--config-dir" and not Path(value).is_dir():
                raise ConfigError(f"--config-dir {value}: there is no such folder")
            line.flags[name] = value
        elif key in options:
            if not value:
                raise ConfigError(f"{word}: has no value; write {key}=<value> or omit it")
            if key in line.options:
                raise ConfigError(f"{word}: {key} is given twice")
            line.options[key] = value
        elif key == "trusted" and equals:
            inner = value[1:-1] if value.startswith("[") and value.endswith("]") else value
            names = [name.strip() for name in inner.split(",")]
            if not all(part.isidentifier() for name in names for part in name.split(".")):
                raise ConfigError(f"{word}: must be names of packages: trusted=[my_package]")
            if line.trusted:
                raise ConfigError(f"{word}: trusted is given twice")
            line.trusted = tuple(names)
        else:
            line.overrides.append(word)
    return line
