from pathlib import Path

import pytest
import torch

import scaling
from zoo.models.transformer.gpt import GPT

USUAL = {"batch": 8, "sequence": 1024, "mfu": 0.4}


def small():
    return GPT(50, sequence_length=16, embed_dim=8, num_layers=3, num_heads=2, dropout=0.0)


def predicted(world=1, *, sharded=False, recomputed=False, found=None, **changes):
    return scaling.predicted(
        found or scaling.counts(scaling.MODELS["gpt2"]),
        world,
        sharded=sharded,
        recomputed=recomputed,
        **USUAL | changes,
    )


def test_the_page_has_the_table_that_the_program_prints(capsys):
    assert scaling.main([]) == 0
    lines = [
        line for line in capsys.readouterr().out.splitlines() if "gpt2" in line or "ll" in line
    ]
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text("utf-8")
    assert len(lines) == 14 and all(line in page.splitlines() for line in lines)


def test_networks_are_counted_as_published():
    assert scaling.counts(scaling.MODELS["gpt2_xl"]) == (1557611200, 30740800, 48, 1600, 50257)
    assert scaling.counts(scaling.MODELS["llama2_7b"]).parameters == 6738415616


def test_the_state_is_what_adamw_keeps_of_a_network():
    network = small()
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    network(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
    optimizer.step()
    kept = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
    held = [*network.parameters(), *(p.grad for p in network.parameters()), *kept]
    whole = predicted(found=scaling.counts(small), batch=0).bytes
    assert sum(tensor.nbytes for tensor in held) == whole


def test_shards_take_their_share_and_what_is_computed_again_takes_time():
    one, eight = predicted(), predicted(8, sharded=True)
    again = predicted(8, sharded=True, recomputed=True)
    state = 16 * scaling.counts(scaling.MODELS["gpt2"]).parameters
    assert one.bytes - eight.bytes == pytest.approx(state * 7 / 8, rel=0.05)
    assert again.bytes < eight.bytes and again.seconds == pytest.approx(eight.seconds * 4 / 3)


@pytest.mark.parametrize("word", ["model=gpt5", "mfu=2", "batch=0", "layers=3"])
def test_wrong_words_are_refused(word, capsys):
    assert scaling.main([word]) == 2
    assert word.partition("=")[0] in capsys.readouterr().err
