"""Prints what a model is made of: layers, sizes, parameters, MACs, receptive fields, memory.

    python scripts/summary.py model=resnet50
    python scripts/summary.py model=resnet20 input=3x32x32 model.num_classes=100
    python scripts/summary.py experiment=unet_shapes
    python scripts/summary.py model=gpt_char data=stdlib_text task=language_modeling

With an experiment or data it is the model that a run of them builds: the data say their sizes, and
are read only if they cannot say them before (a vocabulary), or have another form than images. A
model alone has its builder's defaults. It is built and run on torch's meta device: nothing is
computed and no memory is taken. Only a model that looks at its input's values is run on the CPU.

MACs (multiply-accumulates) are half of the floating-point operations that torch counts for
convolutions, matrix products and attention, for one sample (or one graph) in evaluation mode; what
is done element by element does not count, nor do fused recurrences on a CPU. The receptive field of
a layer is the size of the part of the input that one position of its output depends on, padding
included, and the distance of neighbours' parts, in pixels; `all` stands for fields that cover the
whole input, `n/a` for what follows attention, upsampling and other operations for which there is no
one such size. The memory is that of the tensors that autograd keeps for the backward pass in
training mode, in fp32, for one sample; of attention, what torch's fused kernels keep, which is not
its weights.
"""

import clone  # noqa: F401

# isort: split
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from receptive_field import ReceptiveFields, tensors_in
from zoo.app.program import program
from zoo.config.command_line import CommandLine
from zoo.config.component import Component
from zoo.config.compose import compose
from zoo.config.errors import ConfigError, as_config_error, one_line
from zoo.config.recipe import Recipe
from zoo.config.targets import signature_of
from zoo.tasks.task import Task

WIDTH = 140  # of the table, where the output is not a terminal
LARGEST = 200_000_000  # parameters of a model that is run on the CPU

# -------------------------------------------------------------------------------------- summary


@dataclass
class Row:
    """One module of a model."""

    name: str
    kind: str
    output: str
    field: str
    parameters: int
    macs: int


@dataclass
class Summary:
    """What a model is made of.

    Attributes:
        rows: the modules in the order of their first call.
        parameters: of the whole model, shared ones once.
        trainable: of these.
        macs: of one sample.
        activations: bytes that autograd keeps for the backward pass of one sample; None if the
            model cannot be run in training mode on the meta device.
    """

    rows: list[Row]
    parameters: int
    trainable: int
    macs: int
    activations: int | None


def summarize(
    model: nn.Module,
    inputs: Sequence[Any],
    networks: Sequence[nn.Module] = (),
    *,
    judged: Callable[[Any, Sequence[Any]], Sequence[Any]] | None = None,
    batched: bool = True,
) -> Summary:
    """Runs a model and notes what happens in it.

    Args:
        model: on the meta device, as its inputs are.
        inputs: its arguments for a batch of one sample.
        networks: of the model, which are run too unless it calls them (a discriminator).
        judged: what these are given, for the model's output and its inputs; None: the output and
            all inputs but the first.
        batched: whether the first dimension of every input is the batch.

    Raises:
        ValueError: the model does not take such a sample.
    """
    modules = dict(model.named_modules())
    outputs: dict[str, tuple[str, str]] = {}
    x = inputs[0]
    is_image = len(inputs) == 1 and isinstance(x, Tensor) and x.ndim == 4
    fields = ReceptiveFields(x) if is_image else None

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            tensors = tensors_in([output])
            shape = "x".join(map(str, tensors[0].shape[1:])) if tensors else ""
            outputs[name] = shape, fields.text(tensors[0]) if fields and tensors else "n/a"

        return hook

    counter = FlopCounterMode(display=False)
    order: list[str] = []
    own: dict[str, int] = {}  # MACs of each module less those of the modules that it calls
    running: list[list[int]] = [[0, 0]]  # of each call: operations before it, and within its calls

    def begin(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any) -> None:
            order.append(name)
            running.append([counter.get_total_flops(), 0])

        return hook

    def end(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            before, within = running.pop()
            found = counter.get_total_flops() - before
            running[-1][1] += found
            own[name] = own.get(name, 0) + found - within

        return hook

    handles = []
    for name, module in modules.items():
        handles.append(module.register_forward_hook(note(name)))
        handles.append(module.register_forward_hook(end(name)))
        handles.append(module.register_forward_pre_hook(begin(name)))
    model.eval()
    try:
        with torch.no_grad(), counter, fields or torch.no_grad():
            output = model(*inputs)
            for network in networks:
                if not any(modules[name] is network for name in order):
                    network(*(judged(output, inputs) if judged else (output, *inputs[1:])))
    finally:
        for handle in handles:
            handle.remove()
    called = list(dict.fromkeys(order))
    parameters = dict.fromkeys(called, 0)
    for name, parameter in model.named_parameters():
        parameters[_owner(name, parameters)] += parameter.numel()
    macs = {name: own[name] // 2 for name in called}
    rows = [
        Row(name, type(modules[name]).__name__, *outputs[name], parameters[name], macs[name])
        for name in called
        if parameters[name] or macs[name] or not list(modules[name].children())
    ]
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return Summary(
        rows,
        parameters=sum(count for count, _ in sizes),
        trainable=sum(count for count, trained in sizes if trained),
        macs=counter.get_total_flops() // 2,
        activations=kept_for_backward(model, inputs, batch=2 if batched else 1),
    )


def _owner(name: str, called: dict[str, int]) -> str:
    """The innermost module that was called and that a parameter belongs to."""
    while name:
        name = name.rpartition(".")[0]
        if name in called:
            return name
    return ""


class _FusedAttention(torch.autograd.Function):
    """Keeps what a fused kernel does: its inputs, its output, and a number for each query."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        batch, heads, queries, _ = q.shape
        # Laid out as the kernels do it, so that what puts the heads side by side copies nothing.
        output = q.new_empty(batch, queries, heads, v.size(3)).transpose(1, 2)
        ctx.save_for_backward(q, k, v, mask, output, torch.empty_like(q[..., 0]))
        return output


class _FusingAttention(TorchFunctionMode):
    """On the meta device torch would take attention apart, and keep its weights."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        mask = args[3] if len(args) > 3 else (kwargs or {}).get("attn_mask")
        return _FusedAttention.apply(*args[:3], mask)


def kept_for_backward(model: nn.Module, inputs: Sequence[Any], batch: int = 2) -> int | None:
    """Bytes of activations a sample that autograd keeps in training mode.

    A batch of two is made of the one sample, since batch normalisation cannot do with one value.
    Storages count once, however many tensors look into them; parameters and buffers do not count.
    """
    ours = {t.untyped_storage()._cdata for t in [*model.parameters(), *model.buffers()]}
    kept: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in ours:
            kept[storage._cdata] = storage  # Alive, so that no other gets its address.
        return tensor

    model.train()
    try:
        repeated = [torch.cat([x] * batch) if isinstance(x, Tensor) else x for x in inputs]
        with saved_tensors_hooks(pack, lambda tensor: tensor), _FusingAttention():
            output = model(*repeated)
        del output
    except (RuntimeError, ValueError, NotImplementedError):
        return None
    finally:
        model.eval()
    return sum(storage.nbytes() for storage in kept.values()) // batch


# --------------------------------------------------------------------------------- command line


def fill(model: Component, size: Sequence[int] | None) -> tuple[Component, Tensor]:
    """A model alone and a sample for it, with every `auto` in its place.

    What nothing says is the builder's own default: 1,000 classes and 224 pixels for networks that
    were made for ImageNet, 32 pixels for others.
    """
    import inspect
    import typing

    node, target = model.node, model.target
    defaults = {  # Those of a builder, and those of the network for what it hands on.
        name: parameter.default
        for function in (typing.get_type_hints(target).get("return"), target)
        if function is not None
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not parameter.empty
    }
    given = {n: v for n, v in node.items() if v != "auto"}
    tokens = "vocab_size" in defaults or "vocab_size" in node
    if size is None and tokens:
        size = (given.get("sequence_length") or defaults.get("sequence_length") or 32,)
    if size is None:
        pixels = given.get("image_size") or defaults.get("image_size")
        pixels = pixels or (224 if defaults.get("num_classes") == 1000 else 32)
        channels = given.get("in_channels") or defaults.get("in_channels") or 3
        size = (channels, pixels, pixels)
        if "in_features" in node and isinstance(given.get("in_features"), int):
            size = (given["in_features"],)
    defaults = {n: v for n, v in defaults.items() if isinstance(v, int)}
    facts = {"num_classes": 10, "out_features": 1} | defaults | size_facts(size)
    facts |= {"sequence_length": size[0]} if tokens and len(size) == 1 else {}
    x = torch.zeros(1, *size, dtype=torch.long if tokens and len(size) == 1 else None)
    return model.replaced({n: facts[n] for n in model.auto if n in facts}), x


def size_facts(size: Sequence[int]) -> dict[str, Any]:
    """What data say of samples of a size: of images, or of vectors."""
    facts: dict[str, Any] = {"in_features": math.prod(size), "in_channels": size[0]}
    return facts | ({"image_size": size[1]} if len(size) == 3 else {})


def parts_of_run(
    recipe: Recipe, size: Sequence[int] | None
) -> tuple[Component, Callable[[nn.Module], Task], Any, bool]:
    """What a run of a recipe builds: the model, the task around one, and a batch of one sample.

    Returns:
        The model's component, what makes the task, the batch, and whether it has a batch dimension.
    """
    single = "batch_size" in signature_of(recipe.data.target)
    data = (recipe.data.replaced({"batch_size": 1}) if single else recipe.data).build()
    try:
        facts = data.facts()
    except RuntimeError:  # Not known before the data are read.
        facts = {}
    if size is not None and facts:
        facts |= size_facts(size)
    if facts.get("image_size") and facts.get("in_channels"):
        sides = size or (facts["in_channels"], facts["image_size"], facts["image_size"])
        batch: Any = (torch.zeros(1, *sides), torch.zeros(1, dtype=torch.long))
    else:
        with as_config_error("data"):
            data.setup(seed=recipe.settings.seed)
        facts = data.facts() | (size_facts(size) if size else {})
        batch = next(iter(data.batches("train", 0)))
        if size:
            batch = (torch.zeros(1, *size), *batch[1:])
    recipe = recipe.fill_auto({"train_samples": 1} | facts, data.resolved())
    return recipe.model, lambda m: recipe.task.build(m, **data.vocabularies), batch, single


def show(summary: Summary, title: str) -> None:
    """Prints the table and the totals."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    table = Table(title=title, title_justify="left")
    for name, justify in (
        ("layer", "left"), ("kind", "left"), ("output", "right"), ("field / stride", "right"),
        ("parameters", "right"), ("MACs", "right"),
    ):  # fmt: skip
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in summary.rows:
        numbers = (f"{n:,}" if n else "" for n in (row.parameters, row.macs))
        table.add_row(row.name or "(itself)", row.kind, row.output, row.field, *numbers)
    console.print(table)
    kept = summary.activations
    memory = "unknown" if kept is None else f"{kept / 2**20:,.2f} MiB a sample"
    print(f"parameters           {summary.parameters:,} ({summary.trainable:,} trainable)")
    unit, scale = ("G", 1e9) if summary.macs >= 1e8 else ("M", 1e6)
    print(f"MACs                 {summary.macs:,} ({summary.macs / scale:.3f} {unit})")
    print(f"weights              {4 * summary.parameters / 2**20:,.2f} MiB in fp32")
    print(f"kept for backward    {memory} in fp32")


def run(line: CommandLine) -> None:
    """Prints the summary of the model that the command line composes."""
    if not line.overrides:
        print(__doc__)
        return
    size = None
    if "input" in line.options:
        if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", line.options["input"]):
            raise ConfigError(f"input={line.options['input']}: must be sizes such as 3x224x224")
        size = tuple(map(int, line.options["input"].split("x")))
    recipe = compose(
        line.overrides, config_dir=line.flags.get("--config-dir"), trusted=line.trusted
    )
    named = {word.lstrip("+").partition("=")[0].partition(".")[0] for word in line.overrides}
    if named & {"experiment", "data"}:
        component, make_task, batch, batched = parts_of_run(recipe, size)
        with torch.device("meta"):
            model = component.build()
        task = make_task(model)
        inputs, networks = task.example_inputs(batch), list(task.networks().values())
        judged = getattr(task, "judged", None)
        # A graph's nodes and edges are no samples.
        batched = batched and len({x.shape[:1] for x in tensors_in(inputs)}) == 1
        if batched:  # Some data sets make several samples of one (the pairs of a word).
            inputs = tuple(x[:1] if isinstance(x, Tensor) else x for x in inputs)
    else:
        component, x = fill(recipe.model, size)
        inputs, networks, judged, batched = (x,), [], None, True
        with torch.device("meta"):
            model = component.build()
    shown = " and ".join("x".join(map(str, x.shape[batched:])) or "1" for x in tensors_in(inputs))
    try:
        summary = _summarize_somewhere(component, model, inputs, networks, judged, batched)
    except (ValueError, RuntimeError, TypeError, NotImplementedError) as error:
        raise ConfigError(
            f"the model cannot be run on an input of {shown} ({one_line(error)[:200]}); "
            "name another (input=3x224x224), or data and a task that it is for"
        ) from error
    given = {k: v for k, v in component.arguments.items() if k in ("num_classes", "in_channels")}
    sizes = "".join(f", {key}={value}" for key, value in given.items())
    show(summary, f"{component.name}, input {shown}{sizes}")


def _summarize_somewhere(
    component: Component,
    model: nn.Module,
    inputs: Sequence[Any],
    networks: Sequence[nn.Module],
    judged: Callable[[Any, Sequence[Any]], Sequence[Any]] | None,
    batched: bool,
) -> Summary:
    """The summary on the meta device or, of a model that looks at values, on the CPU."""
    there = [x.to("meta") if isinstance(x, Tensor) else x for x in inputs]
    try:
        return summarize(model, there, networks, judged=judged, batched=batched)
    except (ValueError, RuntimeError, NotImplementedError):
        if sum(p.numel() for p in model.parameters()) > LARGEST:
            raise
    names = {id(module): name for name, module in model.named_modules()}
    real = component.build()
    networks = [real.get_submodule(names[id(n)]) for n in networks]
    return summarize(real, inputs, networks, judged=judged, batched=batched)


main = program(run, __doc__, options=("input",), flags=("--config-dir",))

if __name__ == "__main__":
    sys.exit(main())
