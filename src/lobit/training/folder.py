"""The folder of a run: what may be written there, and whether a run in it can be gone on with."""

from __future__ import annotations

import fcntl
import os
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.callbacks import ModelCheckpoint

from lobit.atomic import atomic_file, new_folder, remove_stale
from lobit.errors import ConfigError
from lobit.recipes import Recipe, check_recipe
from lobit.training.checkpoints import read_checkpoint

FREE_FIELDS = {"description", "epochs", "threads"}
"""Fields of a recipe that a resumed run may change; every other one would make its numbers those of neither recipe."""
RESULTS = ("result.json", "model.lobit", "report.html", "metrics.csv", "checkpoints/last.ckpt", "checkpoints/best.ckpt")
"""What a run leaves, in the order in which it is removed: whatever is left by a kill in between is a run that can be told from a finished one."""


@contextmanager
def run_folder(folder: Path, recipe: Recipe, *, resume: bool, overwrite: bool) -> Iterator[Path | None]:
    """Make a run's folder ready, with its recipe in it, and keep other processes from training there while the block runs.

    Yields
    ------
    Path or None
        The checkpoint to go on from, if any.

    Raises
    ------
    ConfigError
        When the folder holds a run that is neither to be resumed nor overwritten, a run of another recipe, a damaged checkpoint, or a run that another
        process is at; or when it cannot be written.
    """
    if resume and overwrite:
        raise ConfigError("resume and overwrite exclude each other; choose one")
    checkpoints = folder / "checkpoints"
    _refuse_unasked(folder, allowed=resume or overwrite)
    with ExitStack() as held:
        try:
            held.enter_context(new_folder(checkpoints))
            held.enter_context(_locked(folder))
            started = _refuse_unasked(folder, allowed=resume or overwrite)  # again, now that nobody else can change it
            done = _check_same(checkpoints, recipe) if resume and started else 0
            remove_stale(folder)
            remove_stale(checkpoints)
            if overwrite or done < recipe.epochs:
                # result.json says that the run of recipe.yaml is finished
                for name in RESULTS if overwrite and started else RESULTS[:1]:
                    (folder / name).unlink(missing_ok=True)
            with atomic_file(folder / "recipe.yaml") as stream:
                stream.write(yaml.safe_dump(recipe.model_dump(), sort_keys=False).encode())
        except OSError as error:
            raise ConfigError(f"cannot write to {str(folder)!r}: {error.strerror or error}; name a writable folder with --out") from error
        yield checkpoints / "last.ckpt" if done else None


def _refuse_unasked(folder: Path, *, allowed: bool) -> bool:
    """Whether the folder holds a run; refuse one unless it may be gone on with or replaced."""
    try:
        finished = (folder / "result.json").exists()
        started = finished or any((folder / "checkpoints" / name).exists() for name in ("last.ckpt", "best.ckpt"))
    except OSError as error:
        raise ConfigError(f"cannot read {str(folder)!r}: {error.strerror or error}; name another folder with --out") from error
    if started and not allowed:
        what = "a finished run" if finished else "an interrupted run"
        go_on = f"`lobit export {shlex.quote(str(folder))} FILE` packs its net, " if finished else "--resume goes on with it, "
        raise ConfigError(f"{str(folder)!r} holds {what}; {go_on}--overwrite starts anew, --out names another folder")
    return started


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the kernel lets go of it with the process, however that ends."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another process is training in {str(folder)!r}; wait for it or stop it, or name another folder with --out"
            ) from None
        except OSError:  # a network file system without locks
            pass
        yield
    finally:
        os.close(handle)


def _check_same(checkpoints: Path, recipe: Recipe) -> int:
    """The epochs that ``last.ckpt`` holds, 0 where there is none; refuse what cannot be gone on with."""
    last, best = (path if path.exists() else None for path in (checkpoints / "last.ckpt", checkpoints / "best.ckpt"))
    folder = str(checkpoints.parent)
    if last and not best and recipe.data.validation:
        raise ConfigError(f"{str(checkpoints)!r} has lost best.ckpt, the best epoch so far; put it back, or start anew with --overwrite")
    if not (last or best):
        return 0
    stored = _whole(last, best) if last else {}
    # a run that was killed between the two has a best epoch that last.ckpt does not know of, and repeats it
    ahead = _whole(best, last) if best else stored
    started, wanted = _fields((stored or ahead)["lobit"]["recipe"]), recipe.model_dump()
    done, known = (len(checkpoint["lobit"]["history"]) if checkpoint else 0 for checkpoint in (stored, ahead))
    if recipe.epochs < max(done, known):
        raise ConfigError(
            f"{folder!r} holds a run of {max(done, known)} epochs, more than {recipe.epochs}; ask for at least {max(done, known)}, or overwrite it"
        )
    changed = [field for field in wanted if field not in FREE_FIELDS and started.get(field) != wanted[field]]
    if changed:
        listed = "; ".join(f"{field} was {started.get(field)!r}, now is {wanted[field]!r}" for field in changed)
        raise ConfigError(f"{folder!r} holds a run of another recipe ({listed}); --overwrite starts anew")
    return done


def _fields(started: dict[str, Any]) -> dict[str, Any]:
    """The fields of a stored recipe, with what this version adds at its default, so that a run of an older one goes on."""
    try:
        return check_recipe("of the run", started).model_dump()
    except ConfigError:
        return started


def _whole(path: Path, other: Path | None) -> dict[str, Any]:
    """Read a checkpoint; where it is damaged, say what the other one is still good for."""
    try:
        return read_checkpoint(path)
    except ConfigError as error:
        try:
            epochs = len(read_checkpoint(other)["lobit"]["history"]) if other else 0
        except ConfigError:
            epochs = 0
        if not epochs:
            raise ConfigError(f"{error}; start anew with --overwrite") from error
        here, there = shlex.quote(str(path)), shlex.quote(str(other))
        go_on = f"`cp {there} {here}` and --resume go on from there, " if path.name == "last.ckpt" else ""
        raise ConfigError(
            f"{error}. {str(other)!r}, of epoch {epochs}, is whole: {go_on}`lobit export {there} FILE` packs it, --overwrite starts anew"
        ) from error


def keep_checkpoints(folder: Path, *, validation: bool) -> list[ModelCheckpoint]:
    """Callbacks that write ``best.ckpt`` (by validation accuracy, the first of equals) and ``last.ckpt`` after each epoch, in this order.

    The last one holds the state of both, so it must be written after the best one is known: a run that is killed between them repeats the epoch.
    """
    best = [_Keep(folder, filename="best", monitor="val_accuracy", mode="max")] if validation else []
    return [*best, _Keep(folder, filename="last")]


class _Keep(ModelCheckpoint):
    """One file, written over and over; it still knows its best score when the folder was moved between two runs."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder / "checkpoints", enable_version_counter=False, save_on_train_epoch_end=True, **settings)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state, with this folder in place of the one it was written in."""

        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else ""

        paths = {name: here(state_dict[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        scores = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": scores, "dirpath": self.dirpath})
