"""Lets a trained language model write, from its run folder alone.

    python scripts/generate.py run=<run folder> prompt="To be, or not" length=500
    python scripts/generate.py run=<run folder> temperature=0.7 top_k=40 top_p=0.9 seed=3

The text appears as it is drawn. Besides the run's folder:

prompt=            how it begins; without one, after a line break
length=500         tokens to write
temperature=1      divides the logits; 0 always takes the most probable token
top_k=             draw only among this many most probable tokens
top_p=             draw only among the fewest tokens that together have this probability
seed=0             of the random numbers: the same seed, the same text
checkpoint=best    best, last or a file

Values of the stored configuration that do not make another run may be overridden as well:
`trainer.device=cpu`.
"""

from zoo.app.named_runs import find_run
from zoo.app.program import program
from zoo.app.stored_runs import rebuilt, seed_of
from zoo.config.command_line import CommandLine
from zoo.config.errors import ConfigError, as_config_error

OPTIONS = ("run", "prompt", "length", "temperature", "top_k", "top_p", "seed", "checkpoint")


def generate(line: CommandLine) -> None:
    """Writes the text to standard output as it is drawn."""
    if "run" not in line.options:
        raise ConfigError("run=<run folder> is required")
    find_run(line, "run")
    length = line.integer("length", 500, least=1)
    temperature, top_p = line.number("temperature", 1.0), line.number("top_p", None)
    top_k, seed = line.integer("top_k", None, least=1), seed_of(line)

    from zoo.app.predict import write_text
    from zoo.inference.generation import Sampler

    with as_config_error():
        sampler = Sampler(temperature, top_k=top_k, top_p=top_p, seed=seed)
    refusal = f"run={line.options['run']}: this run is not a language model"
    write_text(rebuilt(line), "generate", refusal, line.options.get("prompt"), length, sampler)
    print()


main = program(generate, __doc__, options=OPTIONS)
