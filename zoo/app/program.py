"""What the small programs share: words in, one line for what is wrong, an exit code out."""

import sys
from collections.abc import Callable, Sequence

from zoo.app.failures import report
from zoo.app.processes import require_one_process
from zoo.app.streams import lasting_output
from zoo.config.command_line import CommandLine, parse_words
from zoo.training.interruption import Interrupted


def program(
    body: Callable[[CommandLine], None],
    doc: str | None,
    *,
    options: Sequence[str],
    flags: Sequence[str] = (),
) -> Callable[..., int]:
    """The `main` of a program.

    Args:
        body: what it does.
        doc: what `--help` prints.
        options: names whose values are taken literally, see `parse_words`.
        flags: besides `--help`.

    Returns:
        A function of the words of the command line (the process's own, if None) that returns the
        exit code.
    """

    def main(words: Sequence[str] | None = None) -> int:
        with lasting_output():
            return answer(words)

    def answer(words: Sequence[str] | None) -> int:
        try:
            given = sys.argv[1:] if words is None else words
            line = parse_words(given, options=options, flags=("--help", *flags))
            if "--help" in line.flags:
                print(doc)
            else:
                require_one_process("this program")
                body(line)
        except (Exception, KeyboardInterrupt, Interrupted) as error:
            return report(error)
        return 0

    return main
