"""What `evaluate.py` does with the run of a generative model, from the words of a command line."""

import sys
from collections.abc import Sequence
from pathlib import Path

from zoo.app.commands import printable, relative
from zoo.app.stored_runs import OmittedError, new_file, rebuilt, seed_of, set_up_data
from zoo.config.command_line import CommandLine
from zoo.config.errors import ConfigError


def sample_from_run(line: CommandLine) -> None:
    """Writes samples that the run's model draws."""
    count, seed = line.integer("sample", 1, least=1), seed_of(line)
    out = new_file(line)
    from zoo.app.predict import draw_samples

    run = Path(line.options["run"])
    print(relative(draw_samples(rebuilt(line), count, seed=seed, out=out, run=run)))


def neighbours_with_run(line: CommandLine) -> None:
    """Writes samples that the run's model draws above the training images nearest to them."""
    count, seed = line.integer("neighbours", 1, least=1), seed_of(line)
    out = new_file(line)
    from zoo.app.generative.neighbours import check_neighbours, draw_neighbours
    from zoo.training.run_folder import RunFolder

    run, parts = Path(line.options["run"]), rebuilt(line)
    check_neighbours(parts)  # Before any data are read.
    set_up_data(parts, RunFolder(run))
    written, said = draw_neighbours(parts, count, seed=seed, out=out, run=run)
    print(said)
    print(relative(written))


def over_training_of_run(line: CommandLine) -> None:
    """Writes the samples that a run has shown, a row for each evaluation."""
    count, out = line.integer("over_training", 1, least=1), new_file(line)
    from zoo.app.generative.over_training import draw_over_training

    run = Path(line.options["run"])
    written, steps = draw_over_training(rebuilt(line), count, out=out, run=run)
    print(f"from top to bottom steps {', '.join(map(str, steps))}")
    print(relative(written))


def reconstruct_with_run(line: CommandLine) -> None:
    """Writes images above what the run's model makes of their latent variables."""
    from zoo.app.generative.latents import draw_reconstructions
    from zoo.app.predict import image_files

    run, source, out = Path(line.options["run"]), Path(line.options["reconstruct"]), new_file(line)
    image_files(source, key="reconstruct")  # A wrong path is refused before the run is rebuilt.
    written, omitted, done = draw_reconstructions(rebuilt(line), source, out=out, run=run)
    print(relative(written))
    if omitted:
        print(printable("\n".join(omitted)), file=sys.stderr)
        total = done + len(omitted)
        raise OmittedError(f"{len(omitted)} of {total} images cannot be used and were omitted")


def interpolate_with_run(line: CommandLine) -> None:
    """Writes what lies between the latent variables of two images, or of two seeds."""
    from zoo.app.generative.latents import draw_interpolation, is_seeds

    asked = line.options["interpolate"]
    first, comma, last = asked.partition(",")
    if not (first and comma and last):
        raise ConfigError(
            f"interpolate={asked}: must be two image files or two seeds, with a comma between them"
        )
    if is_seeds((first, last)):
        check_seeds((first, last), f"interpolate={asked}")
    else:
        check_files((first, last), f"interpolate={asked}")
    steps, out = line.integer("steps", 8, least=2), new_file(line)
    run = Path(line.options["run"])
    written = draw_interpolation(rebuilt(line), (first, last), steps, out=out, run=run)
    print(relative(written))


def traverse_with_run(line: CommandLine) -> None:
    """Writes what moving each latent variable of an image, or of a seed, makes of it."""
    from zoo.app.generative.latents import draw_traversal, is_seeds

    start = line.options["traverse"]
    check = check_seeds if is_seeds((start,)) else check_files
    check((start,), f"traverse={start}")
    steps, out = line.integer("steps", 7, least=2), new_file(line)
    run = Path(line.options["run"])
    written, chosen = draw_traversal(rebuilt(line), start, steps, out=out, run=run)
    print(f"from top to bottom latent variables {', '.join(map(str, chosen))}")
    print(relative(written))


def check_seeds(seeds: Sequence[str], said: str) -> None:
    """Refuses seeds that torch does not take."""
    if max(map(int, seeds)) >= 2**63:
        raise ConfigError(f"{said}: seeds must be below 2**63")


def check_files(files: Sequence[str], said: str) -> None:
    """Refuses files that are not there."""
    for file in files:
        if not Path(file).is_file():
            raise ConfigError(f"{said}: there is no file {file}")
