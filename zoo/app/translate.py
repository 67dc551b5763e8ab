"""Translates lines of text with a trained model, from its run folder alone.

    python scripts/translate.py run=<run folder> < german.txt > english.txt
    python scripts/translate.py run=<run folder> beam_size=5 length_penalty=1 out=english.txt < file

Reads standard input, UTF-8 with one sentence a line, and writes a translation for each line, in the
same order; an empty line stays one. Besides the run's folder:

beam_size=         hypotheses that the search follows, 1 for greedy search; as in training
length_penalty=    exponent: 0 prefers short translations, above 1 long ones; as in training
batch_size=64      lines translated together; at a terminal, one
out=               a new file instead of standard output
checkpoint=best    best, last or a file

Values of the stored configuration that do not make another run may be overridden as well:
`trainer.device=cpu`.
"""

import sys
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from pathlib import Path

from zoo.app.named_runs import find_run
from zoo.app.program import program
from zoo.app.stored_runs import rebuilt
from zoo.config.command_line import CommandLine
from zoo.config.errors import ConfigError

OPTIONS = ("run", "beam_size", "length_penalty", "batch_size", "out", "checkpoint")


def lines_of(file: Iterable[bytes]) -> Iterator[str]:
    """The lines of a file as they come, without what ends them.

    Raises:
        ConfigError: a line is not UTF-8.
    """
    for number, line in enumerate(file, start=1):
        if number == 1:
            line = line.removeprefix(BOM_UTF8)
        try:
            yield line.removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise ConfigError(
                f"line {number:,} of standard input is not UTF-8 ({error})"
            ) from error


def translate(line: CommandLine) -> None:
    """Writes the translations as they are made."""
    if "run" not in line.options:
        raise ConfigError("run=<run folder> is required")
    find_run(line, "run")
    beam_size, alpha = line.integer("beam_size", None, least=1), line.number("length_penalty", None)
    batch_size = line.integer("batch_size", 1 if sys.stdin.isatty() else 64, least=1)
    out = Path(line.options["out"]) if "out" in line.options else None

    from zoo.app.output import check_new
    from zoo.app.predict import write_text

    if out is not None:
        check_new(out)
    write_text(
        rebuilt(line),
        "translate",
        f"run={line.options['run']}: this run does not translate",
        lines_of(sys.stdin.buffer),
        beam_size=beam_size,
        length_penalty=alpha,
        batch_size=batch_size,
        out=out,
        end="\n",
    )


main = program(translate, __doc__, options=OPTIONS)
