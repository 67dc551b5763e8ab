import os

import pytest
import torch

from zoo.training.distributed.launch import Launch, device_name, launch

TORCHRUN = {
    "RANK": "9",
    "WORLD_SIZE": "16",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "8",
    "TORCHELASTIC_RUN_ID": "mine",
    "TORCHELASTIC_RESTART_COUNT": "2",
}


def test_torchrun_says_which_process_this_is_of_how_many():
    found = launch(TORCHRUN)
    assert found == Launch(rank=9, world=16, local_rank=1, local_world=8, group="mine", restarts=2)


def test_without_torchrun_there_is_one_process():
    assert launch({}) == Launch(rank=0, world=1, group=None)


def test_launches_without_a_name_are_told_apart_by_the_process_that_started_them(monkeypatch):
    nameless = {**TORCHRUN, "TORCHELASTIC_RUN_ID": "none"}
    found = launch(nameless).group
    assert found.startswith("parent-")
    assert launch(nameless).group == found
    monkeypatch.setattr(os, "getppid", os.getpid)
    assert launch(nameless).group != found


@pytest.mark.parametrize("wanted", ["cpu", "auto", "cuda"])
def test_one_process_has_the_device_that_it_asks_for(wanted):
    assert device_name(wanted, Launch()) == wanted


def test_each_process_has_its_own_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    place = launch(TORCHRUN)
    assert device_name("auto", place) == device_name("cuda", place) == "cuda:1"
    assert device_name("cpu", place) == "cpu"


def test_more_processes_than_devices_and_one_device_for_all_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(ValueError, match="8 processes on this machine, which has 4 CUDA devices"):
        device_name("auto", launch(TORCHRUN))
    with pytest.raises(ValueError, match="device=cuda:0: names one device for 16 processes"):
        device_name("cuda:0", launch(TORCHRUN))
