import pytest
import torch
import torch.nn.functional as F

from zoo.models.tabular.entity_embeddings import EntityEmbeddings

PAPER = (1116, 8, 3, 4, 13, 32, 13)
ROWS = torch.tensor([[0.5, -1.0, 2, 1], [1.5, 3.0, 4, 2], [-2.0, 0.1, 1, 2]])


def small(**options):
    torch.manual_seed(0)
    return EntityEmbeddings((5, 3), 2, num_numbers=2, **{"hidden_sizes": (6, 4)} | options)


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (lambda: EntityEmbeddings((11, 11), 5, num_numbers=3), 525_203),
        (lambda: EntityEmbeddings(PAPER, 1, embed_dims=(10, 6, 1, 2, 6, 10, 6)), 554_696),
    ],
)
def test_parameter_count_is_the_docstrings(model, count):
    assert sum(p.numel() for p in model().parameters()) == count


def test_embeddings_are_one_hot_columns_times_a_matrix():
    model = small()
    h = ROWS[:, :2]
    for embedding, column, codes in zip(
        model.embeddings, ROWS[:, 2:].unbind(1), (5, 3), strict=True
    ):
        h = torch.cat([h, F.one_hot(column.long(), codes).float() @ embedding.weight], 1)
    for linear in (model.layers[0], model.layers[2]):
        h = (h @ linear.weight.T + linear.bias).relu()
    expected = h @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(model(ROWS), expected)
    assert [e.embedding_dim for e in model.embeddings] == [3, 1]
    with torch.no_grad():
        assert all(0.01 < p.abs().max() <= 0.05 for p in model.parameters() if p.ndim > 1)


def test_what_training_has_not_seen_is_the_zero_vector_and_stays_so():
    model = small()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    unknown = torch.tensor([[0.5, -1.0, 0, 0]])
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.cat([ROWS, unknown])).square().sum().backward()
        optimizer.step()
    assert not any(embedding.weight[0].any() for embedding in model.embeddings)
    hidden = F.pad(unknown[:, :2], (0, 4))
    expected = model.classifier(model.layers(hidden))
    torch.testing.assert_close(model(unknown), expected)


def test_nonsense_is_refused_with_the_value():
    for options, said in (
        ({"embed_dims": (3,)}, r"embed_dims must be as many as cardinalities \(2, .* not 1"),
        ({"embed_dims": (3, 0)}, "embed_dims must be at least 1, not"),
        ({"hidden_sizes": (0,)}, "hidden_sizes must be at least 1, not"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1"),
    ):
        with pytest.raises(ValueError, match=said):
            small(**options)
    with pytest.raises(ValueError, match=r"\(batch, 4\): 2 numbers, then 2 codes, not \(3, 3\)"):
        small()(ROWS[:, :3])
