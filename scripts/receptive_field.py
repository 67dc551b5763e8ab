"""Receptive fields: what part of an image each position of a tensor depends on.

The rules are exact for windows that slide (convolution, pooling), for everything that works element
by element, and for branches that are added or concatenated. Where there is no rule (attention,
upsampling), nothing is said.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary


@dataclass(frozen=True)
class Axis:
    """What the positions along one axis of a tensor see: pixels `first + i * step` to `last + ...`.

    Attributes:
        dim: the tensor's dimension; None once there is one position only, which sees it all.
        first: the first pixel that position 0 sees; below 0 in the padding.
        last: the last one.
        step: pixels between what neighbouring positions see.
    """

    dim: int | None
    first: int
    last: int
    step: int

    def window(self, size: int, stride: int, before: int, dilation: int = 1) -> "Axis":
        """After a window has been slid along it."""
        reach = dilation * (size - 1) - before
        return Axis(
            self.dim,
            self.first - before * self.step,
            self.last + reach * self.step,
            self.step * stride,
        )

    def covers(self, length: int) -> bool:
        """Whether every position sees all of so many pixels."""
        return not self.step and self.first <= 0 and self.last >= length - 1

    def whole(self, length: int) -> "Axis":
        """What all positions together see."""
        return Axis(None, self.first, self.last + (length - 1) * self.step, 0)


Field = tuple[Axis, Axis]

_POINTWISE = {
    "relu",
    "relu_",
    "relu6",
    "hardtanh",
    "hardtanh_",
    "gelu",
    "silu",
    "silu_",
    "sigmoid",
    "tanh",
    "elu",
    "leaky_relu",
    "hardswish",
    "hardsigmoid",
    "dropout",
    "dropout_",
    "dropout1d",
    "dropout2d",
    "feature_dropout",
    "alpha_dropout",
    "batch_norm",
    "local_response_norm",
    "contiguous",
    "clone",
    "to",
    "float",
    "double",
    "add",
    "add_",
    "addcmul",
    "sub",
    "mul",
    "mul_",
    "div",
    "div_",
    "__add__",
    "__radd__",
    "__iadd__",
    "__sub__",
    "__mul__",
    "__rmul__",
    "__imul__",
    "__truediv__",
    "neg",
    "abs",
    "square",
    "sqrt",
    "pow",
    "exp",
    "log",
    "clamp",
    "detach",
    "type_as",
}


class ReceptiveFields(TorchFunctionMode):
    """Follows what each tensor of a forward pass sees of the input, by exact rules.

    Where there is no rule, or two branches do not meet in step, nothing is known of the result.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.lengths = tuple(image.shape[2:])
        # None for what depends on the image in a way for which there is no rule.
        self.fields: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self.fields[image] = (Axis(2, 0, 0, 1), Axis(3, 0, 0, 1))

    def text(self, tensor: Tensor) -> str:
        """A tensor's field as "size / stride", `all` or `n/a`."""
        field: Field | None = self.fields.get(tensor)
        if field is None:
            return "n/a"
        if all(a.covers(n) for a, n in zip(field, self.lengths, strict=True)):
            return "all"
        sizes = [str(axis.last - axis.first + 1) for axis in field]
        strides = [str(axis.step or "-") for axis in field]
        return " / ".join("x".join(t if t[0] != t[1] else t[:1]) for t in (sizes, strides))

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        inputs = [t for t in tensors_in([*args, *kwargs.values()]) if t in self.fields]
        if inputs:
            known = all(self.fields[tensor] is not None for tensor in inputs)
            try:
                field = self._field(func.__name__, inputs, args, kwargs) if known else None
            except (ValueError, TypeError, IndexError):  # Called as no rule expects.
                field = None
            for tensor in tensors_in([output]):
                self.fields[tensor] = field
        return output

    def _field(
        self, name: str, inputs: list[Tensor], args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Field | None:
        x = inputs[0]
        field = self._united([self.fields[tensor] for tensor in inputs])
        if name in _POINTWISE or field is None:
            return field
        if name in ("cat", "concat", "chunk", "split"):
            place = 1 if name in ("cat", "concat") else 2
            dim = kwargs.get("dim", args[place] if len(args) > place else 0) % x.ndim
            return None if dim in [axis.dim for axis in field] else field
        if len(inputs) > 1:
            return None
        rule = getattr(self, f"_{name}", None)
        found: Field | None = rule(x, field, *args[1:], **kwargs) if rule else None
        return found

    def _united(self, fields: Sequence[Field]) -> Field | None:
        """What the sum of several tensors sees, if their positions keep step."""
        made = []
        for axes, length in zip(zip(*fields, strict=True), self.lengths, strict=True):
            first, last = min(a.first for a in axes), max(a.last for a in axes)
            moving = [axis for axis in axes if axis.step] or list(axes)
            if len({(axis.dim, axis.step) for axis in moving}) > 1:
                return None
            if any(axis.covers(length) for axis in axes):
                made.append(Axis(moving[0].dim, first, last, 0))
            elif len(moving) < len(axes):
                return None
            else:
                made.append(Axis(moving[0].dim, first, last, moving[0].step))
        return made[0], made[1]

    def _slid(self, field: Field, size: Any, stride: Any, padding: Any, dilation: Any = 1) -> Field:
        windows = zip(field, *map(_pair, (size, stride, padding, dilation)), strict=True)
        made = [axis.window(*numbers) for axis, *numbers in windows]
        return made[0], made[1]

    def _conv2d(
        self, x: Tensor, field: Field, weight: Tensor, bias: Any = None, stride: Any = 1,
        padding: Any = 0, dilation: Any = 1, groups: int = 1,
    ) -> Field | None:  # fmt: skip
        if isinstance(padding, str):
            return None
        return self._slid(field, tuple(weight.shape[2:]), stride, padding, dilation)

    def _max_pool2d(
        self, x: Tensor, field: Field, kernel_size: Any, stride: Any = None, padding: Any = 0,
        dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False,
    ) -> Field:  # fmt: skip
        return self._slid(field, kernel_size, stride or kernel_size, padding, dilation)

    def _avg_pool2d(
        self, x: Tensor, field: Field, kernel_size: Any, stride: Any = None, padding: Any = 0,
        *rest: Any, **more: Any,
    ) -> Field:  # fmt: skip
        return self._slid(field, kernel_size, stride or kernel_size, padding)

    def _adaptive_avg_pool2d(
        self, x: Tensor, field: Field, output_size: Any, **more: Any
    ) -> Field | None:
        made = []
        for axis, length, wanted in zip(field, x.shape[2:], _pair(output_size), strict=True):
            if wanted == 1:
                made.append(Axis(axis.dim, *_ends(axis.whole(length)), 0))
            elif wanted and length % wanted == 0:
                made.append(axis.window(length // wanted, length // wanted, 0))
            else:
                return None
        return made[0], made[1]

    _adaptive_max_pool2d = _adaptive_avg_pool2d

    def _mean(self, x: Tensor, field: Field, dim: Any = None, keepdim: bool = False) -> Field:
        dims = range(x.ndim) if dim is None else [d % x.ndim for d in _sequence(dim)]
        made = []
        for axis in field:
            if axis.dim is not None and axis.dim in dims:
                axis = axis.whole(x.shape[axis.dim])
            elif axis.dim is not None and not keepdim:
                gone = sum(d < axis.dim for d in dims)
                axis = Axis(axis.dim - gone, axis.first, axis.last, axis.step)
            made.append(axis)
        return made[0], made[1]

    _amax = _sum = _mean

    def _flatten(self, x: Tensor, field: Field, start_dim: int = 0, end_dim: int = -1) -> Field:
        merged = range(start_dim % x.ndim, end_dim % x.ndim + 1)
        made = [
            a.whole(x.shape[a.dim]) if a.dim is not None and a.dim in merged else a for a in field
        ]
        return made[0], made[1]

    def _linear(self, x: Tensor, field: Field, weight: Tensor, bias: Any = None) -> Field:
        return self._mixed(x, field, [x.ndim - 1])

    def _layer_norm(
        self, x: Tensor, field: Field, normalized_shape: Any, *rest: Any, **more: Any
    ) -> Field:
        return self._mixed(x, field, range(x.ndim - len(_sequence(normalized_shape)), x.ndim))

    def _group_norm(self, x: Tensor, field: Field, *rest: Any, **more: Any) -> Field:
        return self._mixed(x, field, range(1, x.ndim))

    def _softmax(self, x: Tensor, field: Field, dim: int, *rest: Any, **more: Any) -> Field:
        return self._mixed(x, field, [dim % x.ndim])

    _log_softmax = _softmax

    def _mixed(self, x: Tensor, field: Field, dims: Iterable[int]) -> Field:
        """Every position along these dimensions sees what all of them saw."""
        mixed = list(dims)
        made = [
            Axis(a.dim, *_ends(a.whole(x.shape[a.dim])), 0)
            if a.dim is not None and a.dim in mixed
            else a
            for a in field
        ]
        return made[0], made[1]

    def _permute(self, x: Tensor, field: Field, *dims: Any) -> Field:
        order = [d % x.ndim for d in (dims[0] if isinstance(dims[0], Sequence) else dims)]
        made = [
            a if a.dim is None else Axis(order.index(a.dim), a.first, a.last, a.step) for a in field
        ]
        return made[0], made[1]

    def _pad(
        self, x: Tensor, field: Field, pad: Sequence[int], mode: str = "constant", *rest: Any,
        **more: Any,
    ) -> Field | None:  # fmt: skip
        before = {x.ndim - 1 - i // 2: pad[i] for i in range(0, len(pad), 2)}
        if mode != "constant" and any(before.get(a.dim or 0, 0) for a in field):
            return None
        made = [a.window(1, 1, before.get(a.dim, 0)) if a.dim is not None else a for a in field]
        return made[0], made[1]

    def ___getitem__(self, x: Tensor, field: Field, index: Any) -> Field | None:
        parts = list(index) if isinstance(index, tuple) else [index]
        if any(not isinstance(part, slice) for part in parts):
            return None
        made = []
        for axis in field:
            part = (
                parts[axis.dim] if axis.dim is not None and axis.dim < len(parts) else slice(None)
            )
            if axis.dim is not None:
                start, _, step = part.indices(x.shape[axis.dim])
                axis = axis.window(1, step, -start)
            made.append(axis)
        return made[0], made[1]


def _pair(value: Any) -> tuple[Any, Any]:
    numbers = _sequence(value)
    return (numbers[0], numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])


def _sequence(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Sequence) else [value]


def _ends(axis: Axis) -> tuple[int, int]:
    return axis.first, axis.last


def tensors_in(values: Iterable[Any]) -> list[Tensor]:
    """The tensors in nested tuples and lists."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            found += tensors_in(value)
    return found
