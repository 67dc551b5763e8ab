"""Prints what a model is made of: layers, sizes, parameters, MACs, receptive fields, memory.

    python scripts/summary.py model=resnet50
    python scripts/summary.py model=resnet20 input=3x32x32 model.num_classes=100
    python scripts/summary.py experiment=unet_shapes input=3x64x64

The model is built and run on torch's meta device: nothing is computed and no memory is taken.

MACs (multiply-accumulates) are half of the floating-point operations that torch counts for
convolutions, matrix products and attention, for one sample in evaluation mode; what is done element
by element does not count. The receptive field of a layer is the size of the part of the input that
one position of its output depends on, padding included, and the distance of neighbours' parts, in
pixels; `all` stands for fields that cover the whole input, `n/a` for what follows attention,
upsampling and other operations for which there is no one such size. The memory is that of the
tensors that autograd keeps for the backward pass in training mode, in fp32, for one sample; of
attention, what torch's fused kernels keep, which is not its weights.
"""

import math
import re
import sys
from collections.abc import Sequence
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
from zoo.config.errors import ConfigError, one_line

WIDTH = 140  # of the table, where the output is not a terminal

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


def summarize(model: nn.Module, size: Sequence[int]) -> Summary:
    """Runs a model on the meta device and notes what happens in it.

    Args:
        model: on the meta device.
        size: of one sample, without the batch.

    Raises:
        ValueError: the model does not take such a sample.
    """
    modules = dict(model.named_modules())
    outputs: dict[str, tuple[str, str]] = {}
    x = torch.empty(1, *size, device="meta")
    fields = ReceptiveFields(x) if len(size) == 3 else None

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            tensors = tensors_in([output])
            shape = "x".join(map(str, tensors[0].shape[1:])) if tensors else ""
            outputs[name] = shape, fields.text(tensors[0]) if fields and tensors else "n/a"

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in modules.items()]
    order: list[str] = []
    handles += [
        module.register_forward_pre_hook(lambda m, i, name=name: order.append(name))
        for name, module in modules.items()
    ]
    counter = FlopCounterMode(display=False)
    model.eval()
    try:
        with torch.no_grad(), counter, fields or torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    called = list(dict.fromkeys(order))
    parameters = dict.fromkeys(called, 0)
    for name, parameter in model.named_parameters():
        parameters[_owner(name, parameters)] += parameter.numel()
    macs = _own_macs(counter, type(model).__name__, called)
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
        activations=kept_for_backward(model, size),
    )


def _owner(name: str, called: dict[str, int]) -> str:
    """The innermost module that was called and that a parameter belongs to."""
    while name:
        name = name.rpartition(".")[0]
        if name in called:
            return name
    return ""


def _own_macs(counter: FlopCounterMode, root: str, called: Sequence[str]) -> dict[str, int]:
    """The MACs of each module less those of the modules within it."""
    counts = counter.get_flop_counts()
    within = {name: f"{root}.{name}" if name else root for name in called}
    total = {name: sum(counts.get(full, {}).values()) // 2 for name, full in within.items()}
    own = dict(total)
    for name in called:
        if name:
            own[_owner(name, total)] -= total[name]
    return own


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


def kept_for_backward(model: nn.Module, size: Sequence[int], batch: int = 2) -> int | None:
    """Bytes of activations a sample that autograd keeps in training mode.

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
        # A batch of two, since batch normalisation cannot do with one value.
        with saved_tensors_hooks(pack, lambda tensor: tensor), _FusingAttention():
            output = model(torch.empty(batch, *size, device="meta"))
        del output
    except (RuntimeError, ValueError, NotImplementedError):
        return None
    finally:
        model.eval()
    return sum(storage.nbytes() for storage in kept.values()) // batch


# --------------------------------------------------------------------------------- command line


def fill(model: Component, size: Sequence[int] | None) -> tuple[Component, tuple[int, ...]]:
    """The model and the size of its input, with every `auto` in its place.

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
    if size is None:
        pixels = given.get("image_size") or defaults.get("image_size")
        pixels = pixels or (224 if defaults.get("num_classes") == 1000 else 32)
        channels = given.get("in_channels") or defaults.get("in_channels") or 3
        size = (channels, pixels, pixels)
        if "in_features" in node and isinstance(given.get("in_features"), int):
            size = (given["in_features"],)
    defaults = {n: v for n, v in defaults.items() if isinstance(v, int)}
    facts = {"num_classes": 10, "out_features": 1} | defaults
    facts |= {"in_features": math.prod(size), "in_channels": size[0]}
    facts |= {"image_size": size[1]} if len(size) == 3 else {}
    return model.replaced({n: facts[n] for n in model.auto if n in facts}), tuple(size)


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
    component, size = fill(compose(line.overrides, trusted=line.trusted).model, size)
    shown = "x".join(map(str, size))
    with torch.device("meta"):
        model = component.build()
        try:
            summary = summarize(model, size)
        except (ValueError, RuntimeError, TypeError, NotImplementedError) as error:
            raise ConfigError(
                f"the model cannot be run on an input of {shown} ({one_line(error)[:200]}); "
                "name another: input=3x224x224"
            ) from error
    given = {k: v for k, v in component.arguments.items() if k in ("num_classes", "in_channels")}
    sizes = "".join(f", {key}={value}" for key, value in given.items())
    show(summary, f"{component.name}, input {shown}{sizes}")


main = program(run, __doc__, options=("input",))

if __name__ == "__main__":
    sys.exit(main())
