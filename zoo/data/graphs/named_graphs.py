"""Small graphs with a name, which come with networkx: people and who has to do with whom."""

from typing import NamedTuple

import torch
from torch import Tensor

NAMES = {
    "karate": "karate_club_graph",
    "les_miserables": "les_miserables_graph",
    "davis": "davis_southern_women_graph",
    "florentine": "florentine_families_graph",
}


class NamedGraph(NamedTuple):
    """An undirected graph.

    Attributes:
        names: of the nodes.
        edge_index: both directions of every edge, int64 ``(2, edges)``.
        edge_weight: float32 ``(edges,)``; None where all edges count alike.
        classes: of each node.
    """

    names: list[str]
    edge_index: Tensor
    edge_weight: Tensor | None
    classes: list[int]


def named_graph(name: str) -> NamedGraph:
    """Reads a graph from networkx.

    The classes of ``karate`` are the two clubs; those of the others are the communities that greedy
    maximisation of the modularity finds (Clauset, Newman and Moore, 2004,
    https://arxiv.org/abs/cond-mat/0408187), weights left out of account.

    Args:
        name: ``karate`` (Zachary, 1977; weights: in how many contexts two meet),
            ``les_miserables`` (Knuth, 1993; weights: in how many chapters two appear together),
            ``davis`` (women and the events they attend; Davis et al., 1941) or ``florentine``
            (marriages between families; Breiger and Pattison, 1986).

    Raises:
        ValueError: there is no such graph.
    """
    if name not in NAMES:
        raise ValueError(f"name must be one of {', '.join(NAMES)}, not {name!r}")
    import networkx

    # By number, since the order of texts in sets changes from process to process.
    graph = networkx.convert_node_labels_to_integers(
        getattr(networkx, NAMES[name])(), label_attribute="name"
    )
    names = [str(graph.nodes[node]["name"]) for node in range(len(graph))]
    links = list(graph.edges(data="weight"))
    ends = torch.tensor([(a, b) for a, b, _ in links]).T  # (2, links)
    weights = None
    if all(weight is not None for *_, weight in links):
        weights = torch.tensor([float(weight) for *_, weight in links]).repeat(2)
    if name == "karate":
        classes = [int(graph.nodes[node]["club"] == "Officer") for node in range(len(graph))]
    else:
        classes = [0] * len(graph)
        for number, nodes in enumerate(networkx.community.greedy_modularity_communities(graph)):
            for node in nodes:
                classes[node] = number
    return NamedGraph(names, torch.cat([ends, ends.flip(0)], 1), weights, classes)
