"""The folder of a run: one process at a time, damage is told, and Ctrl-C leaves all whole."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import threading

import pytest
import torch

from lobit.errors import ConfigError, Interrupted
from lobit.training import load_model, train
from lobit.training.module import TrainingModule
from lobit.training.randomness import random_states, restore_random_states
from tests.training.test_training import state, tiny


def test_a_folder_in_which_another_process_trains_is_refused_and_left_alone(tmp_path):
    train(tiny(epochs=1), out=tmp_path / "a", progress=False)
    before = {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}
    other = os.open(tmp_path / "a", os.O_RDONLY)  # another open file is another holder, in this process too
    fcntl.flock(other, fcntl.LOCK_EX)
    for options in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(ConfigError, match=r"another process is training in '.*a'"):
            train(tiny(epochs=2), out=tmp_path / "a", progress=False, **options)
    assert {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()} == before
    os.close(other)
    train(tiny(epochs=2), out=tmp_path / "a", resume=True, progress=False)


@pytest.mark.parametrize("damage", ["truncated", "a changed byte", "empty"])
def test_a_damaged_last_checkpoint_names_the_best_one_from_which_the_run_goes_on_to_the_same_end(tmp_path, damage):
    train(tiny(), out=tmp_path / "whole", progress=False)
    train(tiny(epochs=1), out=tmp_path / "a b", progress=False)
    best, last = (tmp_path / "a b" / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    data = bytearray(last.read_bytes())
    weight = torch.load(last, weights_only=True)["state_dict"]["model.9.weight"].numpy().tobytes()
    data[data.find(weight[:64])] ^= 1
    last.write_bytes({"truncated": data[: len(data) // 2], "a changed byte": data, "empty": b""}[damage])
    with pytest.raises(ConfigError, match=r"last\.ckpt': .*damaged.*best\.ckpt', of epoch 1, is whole: `cp ") as error:
        train(tiny(epochs=1), out=tmp_path / "a b", resume=True, progress=False)
    load_model(tmp_path / "a b")
    assert os.system(str(error.value).split("`")[1]) == 0  # the command that the message names
    assert last.read_bytes() == best.read_bytes()
    train(tiny(epochs=1), out=tmp_path / "a b", resume=True, progress=False)
    best.write_bytes(best.read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"best\.ckpt': .*damaged.*last\.ckpt', of epoch 1, is whole: `lobit export"):
        train(tiny(epochs=1), out=tmp_path / "a b", resume=True, progress=False)


def test_ctrl_c_in_python_is_a_keyboard_interrupt_that_leaves_no_thread_and_no_handler(tmp_path, monkeypatch):
    train(tiny(), out=tmp_path / "whole", progress=False)
    step = TrainingModule.training_step

    def stops(self, batch, index):
        if self.current_epoch == 1 and index == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch, index)

    monkeypatch.setattr(TrainingModule, "training_step", stops)
    threads, handler, drawn = set(threading.enumerate()), signal.getsignal(signal.SIGINT), torch.get_rng_state()
    with pytest.raises(Interrupted, match="resume=True"):
        train(tiny(), out=tmp_path / "a", progress=False)
    monkeypatch.undo()
    assert issubclass(Interrupted, KeyboardInterrupt)
    assert set(threading.enumerate()) <= threads
    assert signal.getsignal(signal.SIGINT) is handler
    assert torch.equal(torch.get_rng_state(), drawn)
    train(tiny(), out=tmp_path / "a", resume=True, progress=False)
    whole, cut = state(tmp_path / "whole"), state(tmp_path / "a")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_random_states_that_are_none_are_refused():
    states = random_states()
    restore_random_states(states)
    for name in ("torch", "python", "numpy"):
        with pytest.raises(ConfigError, match="random states of the checkpoint"):
            restore_random_states({**states, name: torch.zeros(3)})
        restore_random_states(states)


def test_an_old_run_without_its_last_checkpoint_starts_anew_only_with_the_same_recipe(tmp_path):
    train(tiny(epochs=1), out=tmp_path / "a", progress=False)
    (tmp_path / "a" / "checkpoints" / "last.ckpt").unlink()
    (tmp_path / "a" / "result.json").unlink()
    with pytest.raises(ConfigError, match="interrupted run; --resume"):
        train(tiny(epochs=1), out=tmp_path / "a", progress=False)
    with pytest.raises(ConfigError, match="another recipe"):
        train(tiny(epochs=1, seed=2), out=tmp_path / "a", resume=True, progress=False)
    train(tiny(epochs=1), out=tmp_path / "a", resume=True, progress=False)
    shutil.rmtree(tmp_path / "a")
