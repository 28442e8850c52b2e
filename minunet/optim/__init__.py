"""Optimisers, learning-rate schedules and weight penalties, with PyTorch's names, arguments and update rules.

    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9)
    schedule = CosineAnnealingLR(optimizer, T_max=epochs)
    for each epoch:
        for each batch:
            optimizer.zero_grad(); loss.backward(); optimizer.step()
        schedule.step()

In the formulas w is a parameter, g its gradient, λ the weight decay, η the learning rate. `weight_decay` adds λ·w to every gradient,
biases and norm scales included; the penalties at the end of this file act on kernels only.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from minunet.arrays import array_module, axes_in_memory, device_of, is_array, to_device
from minunet.cuda import capturing, varying
from minunet.kernels import Kernels
from minunet.nn.module import Module
from minunet.shapes import sizes_text
from minunet.tensor import Tensor

K: Any = Kernels(__name__, "sgd", "adam", "rmsprop", "unscale")


class Optimizer:
    """Base class: parameter groups and state. Subclasses name their rule (of `rules.py`), and what it takes: `slots` and `options`.

    params: parameters, or groups {"params": parameters, option: value, …} whose options override the optimiser's.
    param_groups: a list of such groups, all options filled in. state: what is remembered for each parameter.
    """

    rule: str

    def __init__(self, params: Iterable[Any], **defaults: Any) -> None:
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        given: list[Any] = [params] if isinstance(params, Tensor) else list(params)
        if not given:
            raise ValueError(f"{type(self).__name__} got no parameters. Pass model.parameters(), once the model has its layers.")
        for group in given if isinstance(given[0], Mapping) else [{"params": given}]:
            self.add_param_group(group)

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Adds {"params": parameters, option: value, …}."""
        name = type(self).__name__
        params = param_group["params"]
        group = {**param_group, "params": [params] if isinstance(params, Tensor) else list(params)}
        unknown = sorted(group.keys() - self.defaults.keys() - {"params", "initial_lr"})
        if unknown:
            raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(self.defaults)}.")
        taken = {p for known in self.param_groups for p in known["params"]}
        for p in group["params"]:
            if not isinstance(p, Tensor) or p.node is not None:
                raise TypeError(f"{name} takes parameters, got {type(p).__name__}. Pass model.parameters().")
            if p in taken:
                raise ValueError(f"{name}: a parameter of shape {sizes_text(p.shape)} is in two groups or twice in one.")
            taken.add(p)
        group = {**self.defaults, **group}
        self.check(group)
        self.param_groups.append(group)

    def check(self, group: dict[str, Any]) -> None:
        """Raises ValueError for an option out of its range."""
        for option, value in group.items():
            if option in ("lr", "eps", "weight_decay", "momentum", "alpha") and not value >= 0:
                raise ValueError(f"{type(self).__name__}: {option} must be at least 0, got {value}.")
        if not all(0 <= beta < 1 for beta in group.get("betas", ())):
            raise ValueError(f"{type(self).__name__}: betas must lie in [0, 1), got {group['betas']}.")

    def zero_grad(self) -> None:
        """Sets all gradients to None. Forgotten, gradients of successive batches add up."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def unscale(self, factor: float) -> bool:
        """Multiplies all gradients by `factor`, in place; returns whether all are finite then."""
        together: dict[Any, list[Any]] = {}
        for p in self._all_parameters():
            if p.grad is not None:
                if axes_in_memory(p.grad) is None:  # a window of a larger array
                    p.grad = p.grad.copy()
                together.setdefault((p.grad.dtype, p.device), []).append(p.grad)
        finite = [K.unscale(grads, factor) for grads in together.values()]
        return all(finite)

    def step(self) -> None:
        """One update of every parameter that has a gradient; those of one dtype and device go to the kernel together."""
        together: dict[Any, list[tuple[Any, ...]]] = {}
        copied = []
        for group in self.param_groups:
            slots = self.slots(group)
            for p in group["params"]:
                if p.grad is None:
                    continue
                w, state = p.data, self.state.setdefault(p, {})
                behaved = getattr(w.flags, "behaved", True)  # what may not be written NumPy refuses, where the copy goes back
                if axes_in_memory(w) is None or not behaved:  # a window of a larger array
                    w = w.copy(order="K")
                    copied.append((p.data, w))
                if capturing() and not state.keys() >= set(filter(None, slots)):
                    raise RuntimeError(f"a parameter of shape {sizes_text(p.shape)} has its first gradient here, so it has no state yet.")
                options = self.options(state, group)  # before the state is made: its absence tells the first step
                for name in filter(None, slots):
                    state[name] = _like(w, state[name]) if name in state else array_module(w).zeros_like(w)
                job = (w, _like(w, p.grad), [name and state[name] for name in slots], options, (p, p.data, group))
                together.setdefault((w.dtype, device_of(w)), []).append(job)
        for (dtype, _), jobs in together.items():
            weights, grads, states, chosen, owners = map(list, zip(*jobs, strict=True))
            rows = varying(np.array(chosen, dtype), partial(self._again, owners, states, dtype), weights[0])
            getattr(K, self.rule)(weights, grads, [list(arrays) for arrays in zip(*states, strict=True)], rows)
        for window, w in copied:
            window[...] = w

    def _again(self, owners: list[tuple[Tensor, Any, dict[str, Any]]], states: list[list[Any]], dtype: Any) -> Any:
        """The options of a later step of the same parameters, as a CUDA graph needs them. It has the arrays of when it was captured."""
        for (p, data, group), arrays in zip(owners, states, strict=True):
            if p.data is not data or any(name and self.state[p][name] is not a for name, a in zip(self.slots(group), arrays, strict=True)):
                raise RuntimeError(
                    f"{type(self).__name__}: a parameter of shape {sizes_text(p.shape)} or its state is in another array than when the "
                    "CUDA graph was captured, as after load_state_dict(). Make a new graph."
                )
        return np.array([self.options(self.state[p], group) for p, _, group in owners], dtype)

    def slots(self, group: dict[str, Any]) -> tuple[str | None, ...]:
        """Names of the state's arrays in the order of the rule's arguments; None for one that is not in use."""
        raise NotImplementedError

    def options(self, state: dict[str, Any], group: dict[str, Any]) -> tuple[float, ...]:
        """The numbers that the rule takes. Counts the step."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """{"state": {position: {name: array or number}}, "param_groups": [{…, "params": positions}]}, as PyTorch's.

        Arrays are shared with the optimiser, not copied.
        """
        position = {p: i for i, p in enumerate(self._all_parameters())}
        return {
            "state": {position[p]: dict(state) for p, state in self.state.items()},
            "param_groups": [{**group, "params": [position[p] for p in group["params"]]} for group in self.param_groups],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continues from `state_dict`, also one of PyTorch's. Raises ValueError, and changes nothing, where it does not fit."""
        self.check_state_dict(state_dict)
        parameters = self._all_parameters()
        self.state = {}
        for i, state in state_dict["state"].items():
            p = parameters[int(i)]
            self.state[p] = {name: _loaded(name, value, p) for name, value in state.items() if value is not None}
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            options = {option: tuple(v) if isinstance(v, list) else v for option, v in saved.items()}
            group.update({**options, "params": group["params"]})

    def check_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Raises ValueError where `state_dict` is of another kind of optimiser or of other parameters."""
        name, parameters = type(self).__name__, self._all_parameters()
        came = [len(group["params"]) for group in state_dict["param_groups"]]
        own = [len(group["params"]) for group in self.param_groups]
        if came != own:
            raise ValueError(f"{name}: the saved state has groups of {came} parameters, this optimiser {own}. Build it with equal groups.")
        for group in state_dict["param_groups"]:
            lacking = sorted(self.defaults.keys() - group.keys())
            if lacking:
                raise ValueError(f"{name}: the saved state has no {', '.join(lacking)}: it is another optimiser's. Build that one.")
        for i, state in state_dict["state"].items():
            for key, value in state.items():
                shape = np.shape(value)
                if key != "step" and value is not None and shape != parameters[int(i)].shape:
                    raise ValueError(
                        f"{name}: the saved {key} of parameter {i} is {sizes_text(shape)}, the parameter "
                        f"{sizes_text(parameters[int(i)].shape)}. The state belongs to another model."
                    )

    def _all_parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def __repr__(self) -> str:
        shown = [
            f"  group {i}: {len(group['params'])} parameters, " + ", ".join(f"{k}={v}" for k, v in group.items() if k != "params")
            for i, group in enumerate(self.param_groups)
        ]
        return "\n".join([f"{type(self).__name__}(", *shown, ")"])


def _loaded(name: str, value: Any, p: Tensor) -> Any:
    """A saved value as the optimiser keeps it: a count, or an own array of the parameter's dtype, memory order and device."""
    if name == "step":
        return int(value)
    return _copy_like(p.data, to_device(value if is_array(value) else np.asarray(value), p.device))


def _sign(group: dict[str, Any]) -> float:
    return -1.0 if group["maximize"] else 1.0


def _like(weight: Any, array: Any) -> Any:
    """The array in the weight's dtype and memory order: itself where it has them. Then an update need not know of axes."""
    same = array.shape == weight.shape and array.dtype == weight.dtype
    alike = same and (array.strides == weight.strides or axes_in_memory(array) == axes_in_memory(weight))
    return array if alike else _copy_like(weight, array)


def _copy_like(weight: Any, array: Any) -> Any:
    own = array_module(weight).empty_like(weight)
    own[...] = array
    return own


class SGD(Optimizer):
    """Stochastic gradient descent.

    g ← g + λ·w;    b ← μ·b + (1 − dampening)·g  (b ← g at the first step);    w ← w − η·b    (nesterov: w − η·(g + μ·b))

    The learning rate stands outside b, as in PyTorch; Sutskever et al. 2013 and Keras write it inside, which differs when η changes.
    """

    rule = "sgd"

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov}
        super().__init__(params, lr=lr, **options, maximize=maximize)

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError(f"SGD: nesterov needs momentum > 0 and dampening 0, got {group['momentum']} and {group['dampening']}.")

    def slots(self, group: dict[str, Any]) -> tuple[str | None, ...]:
        return ("momentum_buffer" if group["momentum"] else None,)

    def options(self, state: dict[str, Any], group: dict[str, Any]) -> tuple[float, ...]:
        gain = 1 - group["dampening"] if "momentum_buffer" in state else 1
        return _sign(group), group["weight_decay"], group["lr"], group["momentum"], gain, group["nesterov"]


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1).

    g ← g + λ·w;    m ← β₁·m + (1 − β₁)·g;    v ← β₂·v + (1 − β₂)·g²;    w ← w − η·m̂/(√v̂ + ε)
    with m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ). amsgrad: the largest v so far in place of v (Reddi et al. 2018).
    """

    rule = "adam"
    decoupled = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, maximize=maximize)

    def slots(self, group: dict[str, Any]) -> tuple[str | None, ...]:
        return ("exp_avg", "exp_avg_sq", "max_exp_avg_sq" if group["amsgrad"] else None)

    def options(self, state: dict[str, Any], group: dict[str, Any]) -> tuple[float, ...]:
        lr, decay, (beta1, beta2) = group["lr"], group["weight_decay"], group["betas"]
        state["step"] = t = state.get("step", 0) + 1
        scale = math.sqrt(1 - beta2**t)
        shrink, decay = (1 - lr * decay, 0) if self.decoupled else (1, decay)
        rate, eps = lr * scale / (1 - beta1**t), group["eps"] * scale
        return _sign(group), decay, shrink, 1 - beta1, beta2, 1 - beta2, rate, eps


class AdamW(Adam):
    """Adam with the weight decay taken out of the gradient: w ← (1 − η·λ)·w first, then Adam's step (Loshchilov & Hutter 2019)."""

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)


class RMSprop(Optimizer):
    """RMSprop (Hinton's lecture 6e).

    g ← g + λ·w;    s ← α·s + (1 − α)·g²;    b ← μ·b + g/(√s + ε);    w ← w − η·b
    centered: √(s − a²) in place of √s, with a ← α·a + (1 − α)·g (Graves 2013).
    """

    rule = "rmsprop"

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum, "centered": centered}
        super().__init__(params, lr=lr, **options, maximize=maximize)

    def slots(self, group: dict[str, Any]) -> tuple[str | None, ...]:
        return ("square_avg", "momentum_buffer" if group["momentum"] else None, "grad_avg" if group["centered"] else None)

    def options(self, state: dict[str, Any], group: dict[str, Any]) -> tuple[float, ...]:
        state["step"] = state.get("step", 0) + 1
        alpha, decay = group["alpha"], group["weight_decay"]
        return _sign(group), decay, group["lr"], alpha, 1 - alpha, group["eps"], group["momentum"]


def clip_grad_norm_(
    parameters: Iterable[Tensor] | Tensor, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> float:
    """Scales all gradients together so that their joint norm is at most `max_norm`; returns the norm they had."""
    grads = [p.grad for p in ([parameters] if isinstance(parameters, Tensor) else parameters) if p.grad is not None]
    if norm_type == math.inf:
        norm = max((float(abs(g).max()) for g in grads), default=0.0)
    else:
        norm = sum(float((abs(g) ** norm_type).sum(dtype=np.float64)) for g in grads) ** (1 / norm_type)
    if error_if_nonfinite and not math.isfinite(norm):
        raise RuntimeError(f"the gradients' norm is {norm}: a NaN or infinity is among them. Find its origin with mu.debug().")
    scale = min(1.0, max_norm / (norm + 1e-6))
    for g in grads:
        g *= scale
    return norm


# ---- learning-rate schedules ----


class Schedule:
    """Base class: the learning rate as a function of the epoch and of the rate the optimiser began with.

    `step()` after each epoch. Because the rate is computed from the epoch alone, two schedules cannot act on one optimiser; a
    LambdaLR expresses any combination. `state_dict` is plain numbers and lists.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.base_lrs = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
        self.last_epoch = 0
        self._set_rates()

    def rate(self, base: float, epoch: int) -> float:
        """The learning rate in `epoch` for a group that began with `base`."""
        raise NotImplementedError

    def step(self) -> None:
        """Call once after each epoch."""
        self.last_epoch += 1
        self._set_rates()

    def _set_rates(self) -> None:
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = float(self.rate(base, self.last_epoch))

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("optimizer", "lr_lambdas")}

    def check_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Raises ValueError where `state_dict` is another kind of schedule's."""
        own = self.state_dict()
        if state_dict.keys() != own.keys():
            came, wanted = ", ".join(sorted(state_dict)), ", ".join(sorted(own))
            raise ValueError(f"{type(self).__name__}: the saved schedule has {came}; this one has {wanted}. Build the same kind.")

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken; the current rates are in the optimiser's own state."""
        self.check_state_dict(state_dict)
        vars(self).update(state_dict)


def _epochs(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} is a number of epochs, at least 1; got {value}.")
    return value


class StepLR(Schedule):
    """η₀·gamma^⌊t/step_size⌋"""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size, self.gamma = _epochs("step_size", step_size), gamma
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        return base * self.gamma ** (epoch // self.step_size)


class MultiStepLR(Schedule):
    """η₀·gamma^(number of milestones reached)"""

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        return base * self.gamma ** bisect_right(self.milestones, epoch)


class CosineAnnealingLR(Schedule):
    """η_min + (η₀ − η_min)·(1 + cos(π·t/T_max))/2"""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max, self.eta_min = _epochs("T_max", T_max), eta_min
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * epoch / self.T_max)) / 2


class PolynomialLR(Schedule):
    """η₀·(1 − t/total_iters)^power, then 0"""

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0) -> None:
        self.total_iters, self.power = _epochs("total_iters", total_iters), power
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        return base * (1 - min(epoch, self.total_iters) / self.total_iters) ** self.power


class LinearLR(Schedule):
    """Warm-up: the factor on η₀ goes in a straight line from start_factor to end_factor over total_iters epochs, and stays there"""

    def __init__(self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5) -> None:
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, _epochs("total_iters", total_iters)
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        return base * (self.start_factor + (self.end_factor - self.start_factor) * min(epoch, self.total_iters) / self.total_iters)


class LambdaLR(Schedule):
    """η₀·lr_lambda(t); lr_lambda is a function, or one for each group"""

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]]) -> None:
        groups = len(optimizer.param_groups)
        self.lr_lambdas = [lr_lambda] * groups if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != groups:
            raise ValueError(f"LambdaLR: {len(self.lr_lambdas)} functions came for {groups} parameter groups.")
        super().__init__(optimizer)

    def _set_rates(self) -> None:
        for group, base, factor in zip(self.optimizer.param_groups, self.base_lrs, self.lr_lambdas, strict=True):
            group["lr"] = float(base * factor(self.last_epoch))


class ReduceLROnPlateau(Schedule):
    """Multiplies the rate by `factor` when the metric given to `step(metric)` has not improved for more than `patience` epochs.

    mode: "min" for losses, "max" for scores. An improvement beats the best by `threshold`, relative ("rel") or absolute ("abs").
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ValueError(f"ReduceLROnPlateau: mode is 'min' or 'max', threshold_mode 'rel' or 'abs'; got {mode!r}, {threshold_mode!r}.")
        if not 0 <= factor < 1:
            raise ValueError(f"ReduceLROnPlateau: factor must be at least 0 and below 1, got {factor}.")
        self.mode, self.factor, self.patience, self.threshold = mode, factor, patience, threshold
        self.threshold_mode, self.cooldown, self.min_lr, self.eps = threshold_mode, cooldown, min_lr, eps
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = 0
        super().__init__(optimizer)

    def _set_rates(self) -> None:
        """The rate changes in `step` alone."""

    def step(self, metrics: Any = None) -> None:
        """Call once after each epoch with the validation metric."""
        if metrics is None:
            raise TypeError("ReduceLROnPlateau.step needs the metric it watches: schedule.step(validation_loss).")
        current = float(metrics)
        self.last_epoch += 1
        if self._improves(current):
            self.best, self.num_bad_epochs = current, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown_counter - 1, 0
        if self.num_bad_epochs > self.patience:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
            for group in self.optimizer.param_groups:
                reduced = max(group["lr"] * self.factor, self.min_lr)
                if group["lr"] - reduced > self.eps:
                    group["lr"] = reduced

    def _improves(self, current: float) -> bool:
        sign = 1 if self.mode == "min" else -1
        mark = self.best * (1 - sign * self.threshold) if self.threshold_mode == "rel" else self.best - sign * self.threshold
        return sign * current < sign * mark


# ---- penalties ----


class ElasticNet:
    """The penalty l1·Σ|w| + l2·Σw² over the kernels, added to the loss by its gradient l1·sign(w) + 2·l2·w.

        loss.backward(); penalty.add_gradients(model); optimizer.step()         # and penalty.value(model) for the report

    Kernels are the trainable parameters named "weight" with at least two axes: never biases, never the scales of a norm layer.
    The factors are Keras' L1L2, without ½: l2 = a acts on a kernel as SGD's weight_decay 2a does (PyTorch's λ means ½·λ·Σw²), and
    as scikit-learn's ElasticNet(alpha, l1_ratio) for l1 = alpha·l1_ratio, l2 = ½·alpha·(1 − l1_ratio).
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        if l1 < 0 or l2 < 0:
            raise ValueError(f"{type(self).__name__}: the factors must be at least 0, got l1={l1}, l2={l2}.")
        self.l1, self.l2 = l1, l2

    def value(self, model: Module) -> float:
        total = 0.0
        for p in kernels(model).values():
            total += self.l1 * float(abs(p.data).sum(dtype=np.float64)) + self.l2 * float((p.data * p.data).sum(dtype=np.float64))
        return total

    def add_gradients(self, model: Module) -> None:
        """Adds the penalty's gradient to `.grad` of each kernel: call between `backward()` and `step()`."""
        for p in kernels(model).values():
            slope = 2 * self.l2 * p.data
            if self.l1:
                slope += self.l1 * array_module(p.data).sign(p.data)
            p.accumulate(slope, owned=True)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(l1={self.l1}, l2={self.l2})"


class L1(ElasticNet):
    """l1·Σ|w|: pulls small weights to exactly 0."""

    def __init__(self, l1: float = 0.01) -> None:
        super().__init__(l1=l1)


class L2(ElasticNet):
    """l2·Σw²: shrinks weights in proportion to themselves."""

    def __init__(self, l2: float = 0.01) -> None:
        super().__init__(l2=l2)


def kernels(model: Module) -> dict[str, Tensor]:
    """The trainable parameters that penalties act on, by name."""
    return {name: p for name, p in model.named_parameters() if name.split(".")[-1] == "weight" and p.ndim >= 2 and p.requires_grad}
