"""Checkpoints: one safetensors file with everything a run needs to go on as if it had never stopped.

    weights and buffers         arrays under their state_dict names: any reader of safetensors finds them
    optimiser                   arrays "optimizer:<position>:<name>"
    all else                    JSON in the file's metadata: epoch, configuration, options, schedule, random state, checksum

No pickle: loading a file runs no code. The file is written beside its place and moved there when it is complete and on the disk.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minunet import rng as random
from minunet.arrays import is_array, to_device
from minunet.nn.module import Module
from minunet.optim import Optimizer, Schedule

BEST, LAST = "best.safetensors", "last.safetensors"  # in a run's folder: the best epoch, and the end, to resume from

_KEY, _FORMAT, _OPTIMIZER = "minunet", 1, "optimizer:"


class CheckpointError(ValueError):
    """A file that cannot be loaded, or does not fit; says what came, what was expected and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint. Nothing is changed by loading; `restore` puts it into a model."""

    path: Path
    weights: dict[str, np.ndarray[Any, Any]]
    epoch: int
    config: Any
    extra: Any
    _optimizer: dict[str, Any] | None
    _schedule: dict[str, Any] | None
    _rng: dict[str, Any]

    def restore(self, *, model: Module, optimizer: Optimizer | None = None, schedule: Schedule | None = None, rng: bool = True) -> None:
        """Puts weights, optimiser, schedule and random stream back. On CheckpointError nothing has changed."""
        parts: list[tuple[Any, Any]] = [(model, self.weights)]
        for part, saved, name in ((optimizer, self._optimizer, "optimizer"), (schedule, self._schedule, "schedule")):
            if part is None:
                continue
            if saved is None:
                raise CheckpointError(f"checkpoint {self.path} was saved without {name}. Leave {name} out of restore(…) and start it anew.")
            if saved["kind"] != type(part).__name__:
                raise CheckpointError(
                    f"checkpoint {self.path} holds the state of {saved['kind']}, not of {type(part).__name__}. Build the same."
                )
            parts.append((part, saved["state"]))
        for part, state in parts:
            try:
                part.check_state_dict(state)
            except ValueError as problem:
                built = f" It was made with config={self.config}." if part is model and self.config is not None else ""
                raise CheckpointError(f"checkpoint {self.path}: {problem}{built}") from None
        for part, state in parts:
            part.load_state_dict(state)
        if rng:
            random.set_state(self._rng)


def save(
    path: str | os.PathLike[str],
    *,
    model: Module,
    optimizer: Optimizer | None = None,
    schedule: Schedule | None = None,
    epoch: int = 0,
    config: Any = None,
    extra: Any = None,
) -> None:
    """Writes a checkpoint. config, extra: plain JSON values (config should suffice to build the model again).

    The file at `path` is replaced in one step: it is always the old one or the new one, whole, even where the disk is full (OSError)
    or the process is killed.
    """
    arrays = {name: _on_cpu(value.data) for name, value in model.state_dict().items()}
    about = {"format": _FORMAT, "epoch": epoch, "config": config, "extra": extra, "rng": random.get_state()}
    about["schedule"] = None if schedule is None else {"kind": type(schedule).__name__, "state": schedule.state_dict()}
    about["optimizer"] = None
    if optimizer is not None:
        state = optimizer.state_dict()
        numbers: dict[int, dict[str, Any]] = {}
        for i, slots in state["state"].items():
            arrays |= {f"{_OPTIMIZER}{i}:{name}": _on_cpu(value) for name, value in slots.items() if is_array(value)}
            numbers[i] = {name: value for name, value in slots.items() if not is_array(value)}
        about["optimizer"] = {"kind": type(optimizer).__name__, "groups": state["param_groups"], "numbers": numbers}
    try:
        text = json.dumps(about)
    except TypeError as problem:
        raise TypeError(f"a checkpoint's config and extra hold plain numbers, text, lists and dicts only: {problem}.") from None
    _write(Path(path), arrays, {_KEY: text, "crc32": str(_checksum(arrays, text))})


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint. Raises CheckpointError for a file that is damaged, cut off, or no checkpoint of minunet."""
    path = Path(path)
    arrays, metadata = _read(path)
    if _KEY not in metadata:
        raise CheckpointError(
            f"{path} holds {len(arrays)} arrays but is no checkpoint of minunet. For plain weights use load_weights(path)."
        )
    text = metadata[_KEY]
    if metadata.get("crc32") != str(_checksum(arrays, text)):
        raise CheckpointError(f"checkpoint {path} is damaged: its checksum does not fit its contents. Use another copy.")
    about = json.loads(text)
    if about["format"] != _FORMAT:
        raise CheckpointError(f"checkpoint {path} has format {about['format']}; this version of minunet reads {_FORMAT}. Update minunet.")
    optimizer = about["optimizer"]
    if optimizer is not None:
        state = {int(i): dict(numbers) for i, numbers in optimizer["numbers"].items()}
        for key in [key for key in arrays if key.startswith(_OPTIMIZER)]:
            _, i, name = key.split(":", 2)
            state[int(i)][name] = arrays.pop(key)
        optimizer = {"kind": optimizer["kind"], "state": {"state": state, "param_groups": optimizer["groups"]}}
    return Checkpoint(path, arrays, about["epoch"], about["config"], about["extra"], optimizer, about["schedule"], about["rng"])


def load_trained(path: str | os.PathLike[str], task: str) -> Checkpoint:
    """Reads a checkpoint, or that of the best epoch where `path` is a run's folder. Raises ValueError if it is for another task."""
    path = Path(path)
    saved = load(path / BEST if path.is_dir() else path)
    found = saved.config.get("task") if isinstance(saved.config, dict) else None
    if found != task:
        raise ValueError(f"{str(path)!r} is no network for {task}: its task is {found!r}. Name one that was trained for it.")
    return saved


def load_weights(path: str | os.PathLike[str]) -> dict[str, np.ndarray[Any, Any]]:
    """{name: array} of a checkpoint, of any safetensors file, or of an .npz file."""
    path = Path(path)
    arrays = _read_npz(path) if path.suffix == ".npz" else _read(path)[0]
    return {name: array for name, array in arrays.items() if not name.startswith(_OPTIMIZER)}


def _on_cpu(array: Any) -> np.ndarray[Any, Any]:
    return np.asarray(to_device(array, "cpu"), order="C")


def _checksum(arrays: Mapping[str, np.ndarray[Any, Any]], text: str) -> int:
    """CRC-32 of the text and, in the order of their names, of all arrays with names, dtypes and shapes."""
    crc = zlib.crc32(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        crc = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), crc)
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data, crc)
    return crc


def _write(path: Path, arrays: dict[str, np.ndarray[Any, Any]], metadata: dict[str, str]) -> None:
    from safetensors import SafetensorError, numpy  # noqa: PLC0415  keeps `import minunet` light

    path = path.resolve()  # through a link, so that the link survives
    partial = path.with_name(f".{path.name}.partial")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"checkpoint {path} cannot be written: there is no folder {path.parent}. Create it first.")
    try:
        numpy.save_file(arrays, partial, metadata)
        partial.chmod(0o666 & ~_umask())  # safetensors makes files that only their owner may read
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError) as problem:
        raise OSError(
            f"checkpoint {path} could not be written ({problem}); what was there before is untouched. Free space or choose another folder."
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _read(path: Path) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, str]]:
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415  keeps `import minunet` light

    _check_is_file(path)
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118  no mapping
    except (SafetensorError, OSError, TypeError, ValueError) as problem:
        raise _unreadable(path, "safetensors", problem) from None


def _read_npz(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    _check_is_file(path)
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as problem:
        raise _unreadable(path, ".npz", problem) from None


def _check_is_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}.")


def _unreadable(path: Path, kind: str, problem: Exception) -> CheckpointError:
    size = path.stat().st_size
    return CheckpointError(
        f"{path} ({size} bytes) is no readable {kind} file: cut off, damaged, or of another kind ({problem}). Use another copy."
    )
