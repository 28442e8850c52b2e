"""Module: a part of a network that owns parameters, buffers and other modules.

A module keeps everything in ordinary attributes. What an attribute *is* says what it means:

    self.weight = Parameter(array)                learned: listed by `parameters()`
    self.register_buffer("running_mean", array)   kept in the state_dict, not learned
    self.encoder = Encoder()                      a child: its parameters are found through it, under "encoder.…"

Names and the order of `state_dict` are PyTorch's, so that weights travel both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from minunet import arrays
from minunet.shapes import sizes_text
from minunet.tensor import Tensor, tensor

_M = TypeVar("_M", bound="Module")
_LISTED = 6  # names an error spells out


class Parameter(Tensor):
    """A tensor that a module learns. data: a tensor or array (shared, not copied) or a Python number or list (float32)."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        if not isinstance(data, Tensor):
            data = Tensor(data) if arrays.is_array(data) else tensor(data)
        super().__init__(data.data, requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


class Keys(NamedTuple):
    """What `load_state_dict` found to differ."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class HookHandle:
    """Returned by `register_forward_hook`; `remove()`, or leaving a `with` block, takes the hook away."""

    def __init__(self, module: Module, hook: Callable[..., Any]) -> None:
        self.module, self.hook = module, hook

    def remove(self) -> None:
        self.module._forward_hooks = tuple(handle for handle in self.module._forward_hooks if handle is not self)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class Module:
    """Base class of layers and networks. Subclasses assign parameters and modules in `__init__` and define `forward`."""

    training: bool = True
    _buffer_names: tuple[str, ...] = ()
    _forward_hooks: tuple[HookHandle, ...] = ()

    def forward(self, *inputs: Any, **options: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} defines no forward(…).")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        output = self.forward(*inputs, **options)
        for handle in self._forward_hooks:
            replaced = handle.hook(self, inputs, output)
            output = output if replaced is None else replaced
        return output

    def register_forward_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """After each forward `hook(module, inputs, output)` is called; what it returns, unless None, replaces the output."""
        handle = HookHandle(self, hook)
        self._forward_hooks = (*self._forward_hooks, handle)
        return handle

    # ---- what it owns ----

    def __setattr__(self, name: str, value: Any) -> None:
        wanted = Parameter if isinstance(vars(self).get(name), Parameter) else Tensor if name in self._buffer_names else None
        if wanted is not None and value is not None and not isinstance(value, wanted):
            raise TypeError(
                f"{type(self).__name__}.{name} holds a {wanted.__name__}: assign another or None, got {type(value).__name__}. "
                f"To change its values write .{name}.data[...] = …."
            )
        super().__setattr__(name, value)

    def register_buffer(self, name: str, value: Any) -> None:
        """Keeps a tensor or array that belongs to the state but is not learned; None holds the name free."""
        self._buffer_names = (*self._buffer_names, name)
        setattr(self, name, value if value is None or isinstance(value, Tensor) else Tensor(value))

    def _own_parameters(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, value) for name, value in vars(self).items() if isinstance(value, Parameter))

    def _own_buffers(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, vars(self)[name]) for name in self._buffer_names if vars(self)[name] is not None)

    def _own_modules(self) -> Iterator[tuple[str, Module]]:
        return ((name, value) for name, value in vars(self).items() if isinstance(value, Module))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module (under `prefix`) and all below it; one used in several places is listed once."""
        return _once(self._all_modules(prefix))

    def _all_modules(self, prefix: str) -> Iterator[tuple[str, Module]]:
        yield prefix, self
        for name, child in self._own_modules():
            yield from child._all_modules(_join(prefix, name))

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """All parameters of this module and those below, each once, under names such as "encoder.conv.weight"."""
        return _once((_join(path, name), p) for path, module in self.named_modules(prefix) for name, p in module._own_parameters())

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        return _once((_join(path, name), b) for path, module in self.named_modules(prefix) for name, b in module._own_buffers())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        return _once(self._own_modules())

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def parameters(self) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters())

    def buffers(self) -> Iterator[Tensor]:
        return (buffer for _, buffer in self.named_buffers())

    def children(self) -> Iterator[Module]:
        return (child for _, child in self.named_children())

    # ---- state ----

    def _state(self) -> dict[str, Tensor]:
        """Parameters and buffers under all their names: a shared module appears under each, as in PyTorch."""
        named = {}
        for path, module in self._all_modules(""):
            for name, value in (*module._own_parameters(), *module._own_buffers()):
                named[_join(path, name)] = value
        return named

    def state_dict(self) -> dict[str, Tensor]:
        """{name: detached tensor sharing memory} of all parameters and buffers."""
        return {name: value.detach() for name, value in self._state().items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Keys:
        """Copies values into the parameters and buffers of the same names, in place.

        state_dict: tensors, NumPy arrays or PyTorch tensors by name. strict: names must match exactly. Everything is checked
        first: on ValueError (missing or unexpected names, wrong shapes) nothing has changed.
        """
        own, checked = self._state(), self.check_state_dict(state_dict, strict)
        for name, value in checked.items():
            own[name].data[...] = arrays.to_device(value, own[name].device)
        return Keys([n for n in own if n not in state_dict], [n for n in state_dict if n not in own])

    def check_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> dict[str, Any]:
        """What `load_state_dict` would load, as arrays; raises the same ValueError."""
        own = self._state()
        missing = [name for name in own if name not in state_dict] if strict else []
        unexpected = [name for name in state_dict if name not in own] if strict else []
        values = {name: _array(state_dict[name]) for name in own if name in state_dict}
        wrong = [
            f"{name} ({sizes_text(value.shape) or 'a scalar'} came, {sizes_text(own[name].shape) or 'a scalar'} expected)"
            for name, value in values.items()
            if value.shape != own[name].shape
        ]
        problems = [
            f"{len(names)} {kind}: {', '.join(names[:_LISTED])}{', …' if len(names) > _LISTED else ''}"
            for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
            if names
        ]
        if problems:
            raise ValueError(
                f"the weights do not fit this {type(self).__name__} of {len(own)} arrays: {'; '.join(problems)}. "
                "Build the model with the arguments it was saved with" + (", or pass strict=False to load what fits." if not wrong else ".")
            )
        return values

    # ---- modes, devices, gradients ----

    def train(self: _M, mode: bool = True) -> _M:
        """Training mode, here and below: dropout drops, batch norm uses and updates the batch's statistics."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: _M) -> _M:
        """Evaluation mode: dropout passes everything, batch norm uses its running statistics."""
        return self.train(False)

    def to(self: _M, device: str) -> _M:
        """Moves parameters, buffers and gradients to 'cpu' or 'cuda'; the tensors stay the same objects, so an optimiser keeps them.

        Move before the optimiser's first step: its own arrays stay where the parameters were.
        """
        return self._convert(lambda array: arrays.to_device(array, device))

    def astype(self: _M, dtype: Any) -> _M:
        """Turns floating-point parameters and buffers to `dtype` (float64 for gradient checks), in place."""
        return self._convert(lambda array: array.astype(arrays.as_dtype(dtype), copy=False) if arrays.is_float(array) else array)

    def _convert(self: _M, change: Callable[[Any], Any]) -> _M:
        for value in (*self.parameters(), *self.buffers()):
            value.data = change(value.data)
            value.grad = None if value.grad is None else change(value.grad)
        return self

    def zero_grad(self) -> None:
        """Sets all gradients to None."""
        for parameter in self.parameters():
            parameter.grad = None

    def requires_grad_(self: _M, requires_grad: bool = True) -> _M:
        """False freezes the parameters: they get no gradient and optimisers pass them over."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def apply(self: _M, function: Callable[[Module], Any]) -> _M:
        """Calls `function(module)` on every module below, then on this one."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    # ---- text ----

    def extra_repr(self) -> str:
        """What stands in the brackets of `repr`."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self._own_modules()]
        extra = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({extra})"
        return "\n  ".join([f"{type(self).__name__}({extra}", *lines]) + "\n)"


class _Container(Module):
    """Modules under given or running names."""

    def __len__(self) -> int:
        return len(list(self._own_modules()))

    def __iter__(self) -> Iterator[Any]:
        return (module for _, module in self._own_modules())

    def _add(self, name: str, module: Module) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__} holds modules; got {type(module).__name__} under {name!r}.")
        if not name or "." in name or (hasattr(self, name) and name not in dict(self._own_modules())):
            raise KeyError(f"{name!r} cannot name a module: a name is not empty, has no dot and is no attribute of {type(self).__name__}.")
        setattr(self, name, module)


class Sequential(_Container):
    """Modules applied one after another. Sequential(a, b, …), or Sequential({"name": a, …})."""

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        named = modules[0] if len(modules) == 1 and isinstance(modules[0], Mapping) else {str(i): m for i, m in enumerate(modules)}
        for name, module in named.items():
            self._add(name, module)

    def forward(self, input: Any) -> Any:
        x = input
        for module in self:
            x = module(x)
        return x

    def append(self, module: Module) -> Sequential:
        self._add(str(len(self)), module)
        return self

    def __getitem__(self, index: Any) -> Any:
        """One module, or for a slice a Sequential of those, under the names they have."""
        named = list(self._own_modules())
        return Sequential(dict(named[index])) if isinstance(index, slice) else named[index][1]


class ModuleList(_Container):
    """A list of modules, named by their places. A plain Python list would hide them from `parameters()`."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> ModuleList:
        self._add(str(len(self)), module)
        return self

    def __getitem__(self, index: Any) -> Any:
        modules = list(self)
        return ModuleList(modules[index]) if isinstance(index, slice) else modules[index]


class ModuleDict(_Container):
    """Modules by name. A plain Python dict would hide them from `parameters()`."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        for name, module in (modules or {}).items():
            self._add(name, module)

    def __setitem__(self, name: str, module: Module) -> None:
        self._add(name, module)

    def __getitem__(self, name: str) -> Any:
        return dict(self._own_modules())[name]

    def __contains__(self, name: str) -> bool:
        return name in self.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self) -> list[str]:
        return [name for name, _ in self._own_modules()]

    def values(self) -> list[Module]:
        return [module for _, module in self._own_modules()]

    def items(self) -> list[tuple[str, Module]]:
        return list(self._own_modules())


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _once(named: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Each object under the first of its names."""
    seen = set()
    for name, value in named:
        if value not in seen:
            seen.add(value)
            yield name, value


def _array(value: Any) -> Any:
    """A tensor's array, or any array-like (a PyTorch tensor on the processor) as NumPy's."""
    if isinstance(value, Tensor):
        return value.data
    return value if arrays.is_array(value) else np.asarray(value)
