"""Names that have moved since a run folder was written: read where a stored configuration is read.

A run folder of any earlier version keeps working: `_target_`s and settings are translated to what
they are called now. Entries are never removed. The left side of a target is a module or an object;
the longest that fits counts, and what follows it stays.
"""

from typing import Any

TARGETS = {
    # 0.1.0: all data sets in one folder.
    "zoo.data.cifar": "zoo.data.images.cifar",
    "zoo.data.diabetes": "zoo.data.tabular.diabetes",
    "zoo.data.digits": "zoo.data.images.digits",
    "zoo.data.flowers": "zoo.data.images.flowers",
    "zoo.data.graph": "zoo.data.graphs.batches",
    "zoo.data.graph.KarateClub": "zoo.data.graphs.karate.KarateClub",
    "zoo.data.graph.Planetoid": "zoo.data.graphs.planetoid.Planetoid",
    "zoo.data.image_folder": "zoo.data.images.image_folder",
    "zoo.data.isbi2012": "zoo.data.masks.isbi2012",
    "zoo.data.labelled_text": "zoo.data.text.labelled_text",
    "zoo.data.mask_folder": "zoo.data.masks.mask_folder",
    "zoo.data.mnist": "zoo.data.images.mnist",
    "zoo.data.multi30k": "zoo.data.text.multi30k",
    "zoo.data.parallel_text": "zoo.data.text.parallel_text",
    "zoo.data.pets.PetsSegmentation": "zoo.data.masks.pets.PetsSegmentation",
    "zoo.data.pets": "zoo.data.images.pets",
    "zoo.data.shapes": "zoo.data.masks.shapes",
    "zoo.data.sines": "zoo.data.sequences.sines",
    "zoo.data.skip_gram": "zoo.data.text.skip_gram",
    "zoo.data.stl10": "zoo.data.images.stl10",
    "zoo.data.svhn": "zoo.data.images.svhn",
    "zoo.data.synthetic_eeg": "zoo.data.sequences.synthetic_eeg",
    "zoo.data.synthetic_sequences": "zoo.data.sequences.synthetic",
    "zoo.data.text.StandardLibrary": "zoo.data.text.text.StandardLibrary",
    "zoo.data.text.TinyShakespeare": "zoo.data.text.text.TinyShakespeare",
    "zoo.data.text_files": "zoo.data.text.text_files",
    "zoo.data.voc_segmentation": "zoo.data.masks.voc_segmentation",
    "zoo.models.recurrent.layers.recurrent": "zoo.models.recurrent.kinds.make_rnn",
    "zoo.models.recurrent.steps.Steps": "zoo.models.recurrent.step_embedding.StepEmbedding",
    "zoo.models.recurrent.patterns": "zoo.models.recurrent.sequence_heads",
    # The tasks of generative models, in a folder of their own.
    "zoo.tasks.adversarial": "zoo.tasks.generative.adversarial",
    "zoo.tasks.adversarial_points": "zoo.tasks.generative.adversarial_points",
    "zoo.tasks.contrastive_divergence": "zoo.tasks.generative.contrastive_divergence",
    "zoo.tasks.denoising_diffusion": "zoo.tasks.generative.denoising_diffusion",
    "zoo.tasks.density_estimation": "zoo.tasks.generative.density_estimation",
    "zoo.tasks.flow_matching": "zoo.tasks.generative.flow_matching",
    "zoo.tasks.normalizing_flow": "zoo.tasks.generative.normalizing_flow",
    "zoo.tasks.reconstruction": "zoo.tasks.generative.reconstruction",
    "zoo.tasks.variational": "zoo.tasks.generative.variational",
    "zoo.tasks.vector_quantization": "zoo.tasks.generative.vector_quantization",
}

ARGUMENTS = {
    # The k steps had one batch of real samples; now each has its own, as in the paper.
    "zoo.tasks.generative.adversarial.Adversarial": {"discriminator_steps": "generator_every"},
}
"""Arguments of a target by what it is called now: old name to the new one."""

SETTINGS = {"logger.pictures_every": "logger.images_every"}
"""Settings of the fixed part: full key to the key in the same group."""


def moved(target: str) -> str:
    """What a target of an earlier version is called now; one that has not moved stays as it is."""
    parts = target.split(".")
    for depth in range(len(parts), 0, -1):
        name = ".".join(parts[:depth])
        if name in TARGETS:
            return ".".join([TARGETS[name], *parts[depth:]])
    return target


def translated(config: dict[str, Any]) -> dict[str, Any]:
    """A stored configuration with every target, argument and setting as it is called now."""
    now: dict[str, Any] = _with_moved_targets(config)
    for old, new in SETTINGS.items():
        *path, name = old.split(".")
        node = now
        for part in path:
            node = node.get(part, {})
        if isinstance(node, dict) and name in node:
            node[new.rpartition(".")[2]] = node.pop(name)
    # Once an argument of some networks; now the trainer does it for every network.
    model = now.get("model")
    if isinstance(model, dict) and model.pop("gradient_checkpointing", False):
        now.setdefault("trainer", {})["activation_checkpointing"] = True
    return now


def _with_moved_targets(node: Any) -> Any:
    if isinstance(node, dict):
        target = node.get("_target_")
        names: dict[str, str] = {}
        if isinstance(target, str):
            node = {**node, "_target_": moved(target)}
            names = ARGUMENTS.get(node["_target_"], {})
        return {names.get(key, key): _with_moved_targets(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_with_moved_targets(value) for value in node]
    return node
