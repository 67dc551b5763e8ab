import pytest
import torch
from torch import nn

from zoo.models.recurrent.language_model import RecurrentLanguageModel

pytestmark = pytest.mark.parity


class WordLanguageModel(nn.Module):
    """As `RNNModel` in PyTorch's word_language_model: its names and its order, time first."""

    def __init__(self, layer, num_tokens, width, num_layers, dropout, tied):
        super().__init__()
        self.num_tokens = num_tokens
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.Embedding(num_tokens, width)
        self.rnn = layer(width, width, num_layers, dropout=dropout)
        self.decoder = nn.Linear(width, num_tokens)
        if tied:
            self.decoder.weight = self.encoder.weight

    def forward(self, tokens, hidden):
        output, hidden = self.rnn(self.drop(self.encoder(tokens)), hidden)
        decoded = self.decoder(self.drop(output)).view(-1, self.num_tokens)
        return nn.functional.log_softmax(decoded, dim=1), hidden


@pytest.mark.parametrize("backend", ["fused", "written"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("kind", "layer"), [("rnn", nn.RNN), ("lstm", nn.LSTM), ("gru", nn.GRU)])
def test_word_language_model_loads_strictly_with_equal_outputs_and_gradients(
    kind, layer, tied, backend
):
    torch.manual_seed(0)
    theirs = WordLanguageModel(layer, 11, 6, 2, 0.2, tied).double().eval()
    ours = RecurrentLanguageModel(
        11,
        kind=kind,
        embed_dim=6,
        hidden_size=6,
        num_layers=2,
        dropout=0.2,
        tie_weights=tied,
        backend=backend,
    )
    ours = ours.double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    tokens = torch.randint(11, (3, 7))
    hidden = torch.randn(2, 3, 6, dtype=torch.double)
    state = (hidden, hidden.sin()) if kind == "lstm" else hidden

    logits, end = ours(tokens, state)
    their_logits, their_end = theirs(tokens.T, state)
    torch.testing.assert_close(logits.log_softmax(-1), their_logits.view(7, 3, 11).transpose(0, 1))
    torch.testing.assert_close(end, their_end)

    targets = torch.randint(11, (3, 7))
    nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    nn.functional.nll_loss(their_logits, targets.T.flatten()).backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, msg=name)
