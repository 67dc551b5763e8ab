"""Small graphs with a name, which come with networkx: people and who has to do with whom."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from zoo.data.graphs.batches import undirected

GraphName = Literal["Karate", "LesMiserables", "Davis", "Florentine"]


class _Source(NamedTuple):
    """The function of networkx, and what its nodes say of their class, if anything."""

    function: str
    attribute: str = ""
    values: tuple[str | int, ...] = ()
    class_names: tuple[str, ...] = ()


_CLUBS = ("Mr. Hi", "Officer")
SOURCES: dict[str, _Source] = {
    "Karate": _Source("karate_club_graph", "club", _CLUBS, _CLUBS),
    "LesMiserables": _Source("les_miserables_graph"),
    "Davis": _Source("davis_southern_women_graph", "bipartite", (0, 1), ("woman", "event")),
    "Florentine": _Source("florentine_families_graph"),
}


class NamedGraph(NamedTuple):
    """An undirected graph.

    Attributes:
        names: of the nodes.
        edge_index: both directions of every edge, sorted by target, then source, int64
            ``(2, edges)``.
        edge_weight: float32 ``(edges,)``; None where all edges count alike.
        classes: of the nodes, int64 ``(nodes,)``.
        class_names: a name for each of them.
    """

    names: list[str]
    edge_index: Tensor
    edge_weight: Tensor | None
    classes: Tensor
    class_names: tuple[str, ...]


def named_graph(name: str) -> NamedGraph:
    """Reads a graph from networkx.

    | name | nodes | links | classes | source |
    |---|---|---|---|---|
    | ``Karate`` | 34 | 78, weighed by common contexts | clubs | Zachary, 1977 |
    | ``LesMiserables`` | 77 | 254, weighed by common chapters | communities | Knuth, 1993 |
    | ``Davis`` | 32 | 89, of women and events | women, events | Davis, Gardner, Gardner, 1941 |
    | ``Florentine`` | 15 | 20 marriages | communities | Breiger and Pattison, 1986 |

    Communities are no truth about the nodes: greedy maximisation of the modularity (Clauset, Newman
    and Moore, 2004, https://arxiv.org/abs/cond-mat/0408187) finds them from the unweighted links.

    Raises:
        ValueError: there is no such graph.
    """
    if name not in SOURCES:
        raise ValueError(f"name must be one of {', '.join(SOURCES)}, not {name!r}")
    import networkx

    source = SOURCES[name]
    # By number, since the order of texts in sets changes from process to process.
    graph = networkx.convert_node_labels_to_integers(
        getattr(networkx, source.function)(), label_attribute="name"
    )
    nodes = range(len(graph))
    names = [str(graph.nodes[node]["name"]) for node in nodes]
    if source.attribute:
        class_names = source.class_names
        classes = [source.values.index(graph.nodes[node][source.attribute]) for node in nodes]
    else:
        found = networkx.community.greedy_modularity_communities(graph)
        number_of = {node: number for number, members in enumerate(found) for node in members}
        class_names = tuple(f"community {number}" for number in range(len(found)))
        classes = [number_of[node] for node in nodes]
    edge_index = undirected(torch.tensor(list(graph.edges)).T, len(graph))
    weights = [graph.edges[pair].get("weight") for pair in map(tuple, edge_index.T.tolist())]
    edge_weight = None if None in weights else torch.tensor(weights, dtype=torch.float32)
    return NamedGraph(names, edge_index, edge_weight, torch.tensor(classes), class_names)
