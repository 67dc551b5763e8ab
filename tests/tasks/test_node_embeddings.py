import pytest
import torch
from sklearn.metrics import silhouette_score

from tests.tasks.seen import images_of, texts_of, vectors_of
from zoo.data.graphs.node_walks import NodeWalks
from zoo.models.embedding.word2vec import skip_gram
from zoo.tasks.node_embeddings import NodeEmbeddings
from zoo.tasks.word_embeddings import WordEmbeddings


def karate(**arguments):
    data = NodeWalks(**{"walk_length": 10, "window": 3, "batch_size": 170, **arguments})
    data.setup()
    return data


def task_of(data, **arguments):
    torch.manual_seed(0)
    facts = data.facts()
    model = skip_gram(facts["vocab_size"], 8, out_features=facts["out_features"])
    arguments = {"classes": tuple(facts["classes"]), **data.vocabularies, **arguments}
    return NodeEmbeddings(model, **arguments)


def silhouette_after(data, epochs):
    task = task_of(data)
    optimizer = torch.optim.Adam(task.model.parameters(), lr=0.05)
    for epoch in range(epochs):
        for batch in data.batches("train", epoch):
            optimizer.zero_grad()
            task.loss(batch)[0].backward()
            optimizer.step()
    for batch in data.batches("val", 0):
        task.evaluate(batch)
    return task.compute()["silhouette"]


@pytest.mark.parametrize("output", ["negative_sampling", "hierarchical_softmax"])
def test_the_clubs_come_apart_though_nobody_says_who_is_in_which(output):
    data = karate(output=output)
    assert silhouette_after(data, 0) < 0.1
    assert silhouette_after(data, 10) > 0.5


def test_silhouette_is_scikit_learns_of_the_embedding():
    data = karate()
    task = task_of(data)
    task.evaluate(next(data.batches("val", 0)))
    values = task.compute()
    assert set(values) == {"loss", "silhouette"}
    vectors = task.model.embedding.weight.detach().double()
    theirs = silhouette_score(vectors, data.facts()["classes"], metric="cosine")
    assert values["silhouette"] == pytest.approx(theirs, abs=1e-6)
    assert task.directions()["silhouette"] == "max"


def test_loss_is_that_of_word_embeddings():
    data = karate()
    task = task_of(data)
    batch = next(data.batches("train", 0))
    same, count = WordEmbeddings(task.model).loss(batch)
    assert torch.equal(task.loss(batch)[0], same) and count == len(batch.inputs)


def test_neighbours_names_and_an_image_are_shown():
    task = task_of(karate(name="LesMiserables"), words=("Javert",), num_neighbours=3)
    assert texts_of(task)["neighbours"].startswith("Javert: ")
    assert texts_of(task)["neighbours"].count(",") == 2
    assert "Valjean" in vectors_of(task)["words"].labels
    assert images_of(task)["nodes"].shape[0] == 3


def test_nodes_without_classes_have_no_silhouette_and_no_image():
    data = karate()
    task = task_of(data, classes=None)
    task.evaluate(next(data.batches("val", 0)))
    assert set(task.compute()) == {"loss"}
    assert "silhouette" not in task.directions()
    assert set(task.show()) == {"words", "neighbours"}


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ((0, 1), "classes must be 34, one for each node, not 2"),
        ((1,) * 34, r"classes must be two or more, numbered from 0, not \[1\]"),
        ((-1, 0) * 17, r"classes must be two or more, numbered from 0, not \[-1, 0\]"),
    ],
)
def test_wrong_classes_are_refused(classes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        task_of(karate(), classes=classes)
