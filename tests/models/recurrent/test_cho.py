import pytest
import torch

from zoo.models.recurrent.cho import ContextSeq2Seq, seq2seq_gru


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def test_parameter_counts_are_the_public_recipes():
    model = seq2seq_gru(7853, 5893)
    encoder, decoder = model.encoder, model.decoder
    parts = ((encoder.embedding, decoder.embedding), (encoder.rnn,), (decoder.rnn,))
    counts = [count(*part) for part in (*parts, (decoder.fc_out,))]
    assert counts == [3_518_976, 1_182_720, 1_969_152, 7_548_933]
    assert sum(counts) == count(model) == 14_219_781


def test_the_papers_form_has_500_maxout_units_of_two_pieces_over_all_that_a_step_sees():
    with torch.device("meta"):
        decoder = ContextSeq2Seq(15_000, 15_000).decoder
    assert decoder.maxout.linear.weight.shape == (1000, 100 + 1000 + 1000)
    assert decoder.fc_out.weight.shape == (15_000, 500)


@pytest.mark.parametrize("maxout_size", [None, 4])
def test_context_enters_every_step_and_its_output(maxout_size):
    torch.manual_seed(0)
    model = seq2seq_gru(9, 9, embed_dim=4, hidden_size=6, maxout_size=maxout_size, dropout=0.0)
    source, target = torch.randint(9, (2, 5)), torch.randint(9, (2, 4))
    state = model.encode(source)
    other = state._replace(context=-state.context)
    with torch.no_grad():
        model.decoder.rnn.weight_ih_l0[:, 4:] = 0  # the context reaches the output alone
        through_output = [model.decode(target, s)[0] for s in (state, other)]
        model.decoder.rnn.weight_ih_l0.normal_()
        first = (
            model.decoder.fc_out if maxout_size is None else model.decoder.maxout.linear
        ).weight
        first[:, -6:] = 0  # the context reaches the state alone
        through_state = [model.decode(target, s)[0] for s in (state, other)]
    for before, after in (through_output, through_state):
        assert (before != after).any(2).all()


def test_recurrent_matrices_start_orthogonal_others_small_and_biases_at_zero():
    torch.manual_seed(0)
    model = seq2seq_gru(50, 50)
    for name, parameter in model.named_parameters():
        if "weight_hh" in name:
            for gate in parameter.detach().chunk(3):
                torch.testing.assert_close(gate @ gate.T, torch.eye(512), atol=1e-5, rtol=0)
        elif parameter.ndim == 2:
            assert parameter.std().item() == pytest.approx(0.01, rel=0.05)
        else:
            assert not parameter.any()
