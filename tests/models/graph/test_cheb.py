import pytest
import torch

from zoo.models.graph.cheb import ChebConv, ChebNet, chebyshev_sum, scaled_laplacian

# A triangle 0-1-2 with a tail 2-3-4, and node 5 alone.
EDGES = torch.tensor([[0, 1, 2, 2, 3], [1, 2, 0, 3, 4]])
EDGES = torch.cat([EDGES, EDGES.flip(0)], dim=1)
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 3.0, 0.2]).double().repeat(2)


@pytest.mark.parametrize(
    ("features", "classes", "count"), [(1433, 7, 69_143), (3703, 6, 178_054), (500, 3, 24_163)]
)
def test_parameter_count_is_the_docstrings(features, classes, count):
    assert sum(p.numel() for p in ChebNet(features, classes).parameters()) == count


def laplacian(normalization):
    """The formulas, with dense matrices."""
    a = torch.zeros(6, 6, dtype=torch.double)
    a[EDGES[1], EDGES[0]] = WEIGHTS
    degree = a.sum(1)
    if normalization is None:
        return degree.diag() - a
    inverse = torch.where(degree > 0, 1 / degree, 0)
    scaled = inverse.sqrt()[:, None] * a * inverse.sqrt() if normalization == "sym" else a * inverse
    return torch.eye(6, dtype=torch.double) - scaled


@pytest.mark.parametrize("normalization", ["sym", "rw", None])
@pytest.mark.parametrize("is_known", [False, True])
def test_eigenvalues_lie_between_minus_one_and_one(normalization, is_known):
    largest = torch.linalg.eigvals(laplacian(normalization)).real.max()
    scaling = normalization, largest if is_known else None, None, torch.double
    found = scaled_laplacian(EDGES, 6, WEIGHTS, *scaling).matrix.to_dense()
    values = torch.linalg.eigvals(found).real
    assert values.min() >= -1 - 1e-12 and values.max() <= 1 + 1e-12
    if is_known:
        expected = 2 / largest * laplacian(normalization) - torch.eye(6)
        torch.testing.assert_close(found, expected)
        assert values.max().item() == pytest.approx(1)


@pytest.mark.parametrize("terms", [1, 2, 3, 4, 7])
def test_the_sum_filters_the_spectrum_by_cosines(terms):
    torch.manual_seed(0)
    h = [torch.randn(6, 2, dtype=torch.double) for _ in range(terms)]
    matrix = scaled_laplacian(EDGES, 6, WEIGHTS, dtype=torch.double)
    values, vectors = torch.linalg.eigh(matrix.matrix.to_dense())
    angles = values.clamp(-1, 1).acos()  # T_k(cos t) = cos(k t)
    filters = [vectors @ (k * angles).cos().diag() @ vectors.T for k in range(terms)]
    expected = sum(t @ x for t, x in zip(filters, h, strict=True))
    torch.testing.assert_close(chebyshev_sum(matrix, h), expected)


@pytest.mark.parametrize("K", [1, 2, 3])
def test_filter_sees_one_step_less_than_its_size(K):
    torch.manual_seed(0)
    x = torch.randn(6, 5, requires_grad=True)
    ChebConv(5, 3, K)(x, EDGES)[4].sum().backward()
    seen = x.grad.abs().sum(1).gt(0).tolist()
    distances = [3, 3, 2, 1, 0, 9]
    assert not any(is_seen for is_seen, far in zip(seen, distances, strict=True) if far >= K)
    assert seen[4] and (K < 2 or seen[3])


@pytest.mark.parametrize("normalization", ["sym", "rw", None])
def test_graph_without_edges_gives_numbers(normalization):
    none = torch.zeros(2, 0, dtype=torch.long)
    assert scaled_laplacian(none, 3, normalization=normalization).values.isfinite().all()


def test_self_loops_do_not_count():
    loops = torch.cat([EDGES, torch.tensor([[3], [3]])], dim=1)
    for normalization in ("sym", "rw", None):
        found, expected = (
            scaled_laplacian(edges, 6, normalization=normalization).matrix.to_dense()
            for edges in (loops, EDGES)
        )
        assert torch.equal(found, expected)


def test_nonsense_is_refused_with_the_value():
    conv, x = ChebConv(5, 3, 2), torch.rand(6, 5)
    with pytest.raises(ValueError, match="K must be at least 1, not 0"):
        ChebConv(5, 3, 0)
    with pytest.raises(ValueError, match="normalization must be sym, rw or None, not 'left'"):
        ChebNet(5, 3, normalization="left")
    with pytest.raises(ValueError, match="lambda_max must be above 0, not 0"):
        conv(x, EDGES, lambda_max=0.0)
    with pytest.raises(ValueError, match="lambda_max has 2 values: batch must say"):
        conv(x, EDGES, lambda_max=torch.ones(2))
    with pytest.raises(ValueError, match=r"edge_weight must be \(10,\), not \(3,\)"):
        conv(x, EDGES, torch.ones(3))
