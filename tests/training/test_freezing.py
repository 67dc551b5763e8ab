import copy

import pytest
import torch
from torch import nn

from tests.training.tiny import Samples, normed, trainer_of
from zoo.data.images.digits import Digits
from zoo.models.generative.gan import GAN
from zoo.models.vision.mobilenet_v2 import mobilenet_v2
from zoo.tasks.generative.adversarial import Adversarial
from zoo.training.freezing import freeze, training_mode
from zoo.training.optimizers import make_optimizer
from zoo.training.settings import TrainerSettings
from zoo.training.trainer import Trainer


def frozen_names(model):
    return [name for name, p in model.named_parameters() if not p.requires_grad]


def changed(model, before):
    after = model.state_dict()
    return {name for name in after if not torch.equal(after[name], before[name])}


def copied(model):
    return {name: entry.clone() for name, entry in model.state_dict().items()}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"clip_norm": 0.1},
        {"clip_value": 0.1},
        {"accumulate": 3},
        {"ema_decay": 0.9},
        {"precision": "bf16"},
    ],
    ids=str,
)
def test_frozen_parameters_and_statistics_stay_and_all_others_move(settings):
    model = normed()
    freeze(model, ["0.*", "1.*"])
    before = copied(model)
    trainer = trainer_of(model, evaluate_every=2, train_metrics=True, epochs=2, **settings)
    trainer.dry_run()
    trainer.fit()
    assert changed(model, before) == {n for n in before if n[0] not in "01"}


def test_nothing_frozen_means_that_everything_moves():
    model = normed()
    assert freeze(model, []) == ""
    before = copied(model)
    trainer_of(model, epochs=1).fit()
    assert changed(model, before) == set(before)


def test_a_norm_of_which_one_parameter_is_trained_is_trained():
    model = normed()
    freeze(model, ["1.weight", "4.*"])
    training_mode(model)
    assert [m.training for m in model] == [True, True, True, True, False, True, True]


def test_norms_without_parameters_are_none_of_the_frozen():
    model = nn.Sequential(nn.BatchNorm1d(3, affine=False), nn.Linear(3, 2), nn.Linear(2, 2))
    freeze(model, ["1.*"])
    training_mode(model)
    assert all(m.training for m in model)


def test_a_linear_probe_is_the_last_layer_trained_on_features():
    model = normed()
    features, head = copy.deepcopy(model[:-1]).eval(), copy.deepcopy(model[-1])
    freeze(model, ["*", "!6.*"])

    class Features(Samples):
        def setup(self, **arguments):
            super().setup(**arguments)
            for loader in self.loaders.values():
                with torch.no_grad():
                    loader._tensors = (features(loader._tensors[0]), loader._tensors[1])
            return self

    whole, alone = trainer_of(model), trainer_of(head, Features().setup(seed=0))
    results = [trainer.fit() for trainer in (whole, alone)]
    for ours, theirs in zip(model[-1].parameters(), head.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert results[0]["test"]["loss"] == pytest.approx(results[1]["test"]["loss"])


def test_part_of_a_network_that_trains_with_another_may_be_frozen():
    model = GAN(8, 1, latent_dim=4, hidden_sizes=(8,), maxout_sizes=(6,), pieces=2)
    first = next(name for name, _ in model.named_parameters() if name.startswith("generator."))
    freeze(model, [first])
    before = copied(model)
    data = Digits(batch_size=16, image_size=8, scaling="symmetric")
    data.setup()
    task = Adversarial(model, num_components=3)
    optimizers = {
        name: make_optimizer(torch.optim.AdamW, network, lr=0.01)
        for name, network in task.networks().items()
    }
    Trainer(
        task, data, optimizers, settings=TrainerSettings(steps=3, epochs=None, device="cpu")
    ).fit()
    assert set(before) - changed(model, before) == {first}


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["0.*"], ["0.weight", "0.bias"]),
        (["0.bias", "6.bias"], ["0.bias", "6.bias"]),
        (["*", "!6.*", "!4.*", "!3.*", "!1.*"], ["0.weight", "0.bias"]),
        (["!6.*", "*.bias"], ["0.bias", "1.bias", "3.bias", "4.bias"]),
        (["[03].weight"], ["0.weight", "3.weight"]),
    ],
    ids=str,
)
def test_patterns_freeze_what_they_match_less_the_exceptions(patterns, names):
    model = normed()
    freeze(model, patterns)
    assert frozen_names(model) == names


def test_shared_parameters_are_frozen_by_either_name():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    freeze(model, ["1.weight"])
    assert frozen_names(model) == ["0.weight"]


def test_what_is_frozen_is_said_in_one_line():
    assert freeze(normed(), ["0.*", "1.*"]) == (
        "frozen: 72 of 187 parameters; 1 normalisation layers keep their statistics"
    )
    assert freeze(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), ["0.*"]) == (
        "frozen: 6 of 9 parameters"
    )


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
        self.classifier = nn.Linear(3, 2)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["features"], r"freeze=features: no parameter matches; did you mean 'features\.\*'\?"),
        (["feature.*"], r"freeze=feature\.\*: .* did you mean 'features\.\*'"),
        (["*", "!clasifier.*"], r"freeze=!clasifier\.\*: .* did you mean 'classifier\.\*'"),
        (["features.0.weigth"], r"did you mean 'features\.0\.weight'"),
        (["xyz"], r"freeze=xyz: .* the model has features\.\*, classifier\.\*$"),
        (["*"], r"freeze=\*: leaves nothing to train; .* !classifier\.\*"),
        (["features.*", "classifier.*"], "leaves nothing to train"),
        (["!classifier.*"], r"freeze=!classifier\.\*: excepts parameters from nothing; add '\*'"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(patterns, message):
    with pytest.raises(ValueError, match=message):
        freeze(Named(), patterns)


def test_a_classifier_on_frozen_features_has_the_parameters_of_its_layer():
    network = mobilenet_v2(5)
    note = freeze(network, ["*", "!classifier.*"])
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert trained == 5 * 1280 + 5 == 6_405
    assert note.startswith("frozen: 2,223,872 of 2,230,277 parameters")
