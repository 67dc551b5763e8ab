import torch

from zoo.data.sampling import epoch_order, mix_seed


def test_mixed_seed_is_the_same_number_on_every_machine():
    assert mix_seed("order", 3, 7) == 11699795506952650118


def test_neighbouring_seeds_and_epochs_give_different_orders():
    orders = {tuple(epoch_order(20, seed=s, epoch=e).tolist()) for s in range(4) for e in range(4)}
    assert len(orders) == 16


def test_order_visits_every_sample_once():
    assert epoch_order(100, seed=1, epoch=2).sort().values.tolist() == list(range(100))


def test_order_neither_uses_nor_changes_the_global_random_state():
    torch.manual_seed(0)
    before, first = torch.get_rng_state(), epoch_order(50, seed=0, epoch=0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(epoch_order(50, seed=0, epoch=0), first)
