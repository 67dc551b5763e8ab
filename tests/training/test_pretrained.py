import re
import sys
import types

import pytest
import torch
from torch import nn

from tests.training.tiny import mlp, new_folder, normed, trainer_of
from zoo.models.transformer import gpt
from zoo.models.transformer.bert import bert_classifier, char_bert
from zoo.models.transformer.llama import llama_char
from zoo.models.vision.densenet import densenet_cifar
from zoo.models.vision.googlenet import googlenet
from zoo.models.vision.vision_transformer import vit_cifar
from zoo.training.pretrained import load_pretrained


@pytest.fixture
def saved(tmp_path):
    """Writes something as a file of weights."""

    def save(content, name="weights.pth"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


def moved(seed=1):
    """A state dict of `normed`'s names and shapes with values of its own."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(entry.shape, generator=generator) if entry.ndim else torch.tensor(7)
        for name, entry in normed().state_dict().items()
    }


def holds(model, state):
    own = model.state_dict()
    return all(torch.equal(own[name], entry) for name, entry in state.items())


def prefixed(state, prefix):
    return {prefix + name: entry for name, entry in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: prefixed(state, "module."),
        lambda state: prefixed(state, "_orig_mod."),
        lambda state: prefixed(state, "module._orig_mod."),
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": prefixed(state, "module."), "optimizer": {}},
        lambda state: {n: s.double() for n, s in state.items()},
        lambda state: {n: s for n, s in state.items() if not n.endswith("num_batches_tracked")},
    ],
    ids=["plain", "ddp", "compiled", "both", "lightning", "references", "double", "old"],
)
def test_weights_are_read_from_what_people_save(wrap, saved):
    model, state = normed(), moved()
    loaded = load_pretrained(model, saved(wrap(state)))
    assert holds(model, {n: s for n, s in state.items() if "num_batches" not in n})
    assert (loaded.fresh, loaded.unused) == ((), ())
    assert str(loaded).endswith(f"{len(loaded.loaded)} tensors loaded")


def test_parameters_keep_their_place_in_memory_and_the_optimizer(saved):
    model = normed()
    before = {name: entry.data_ptr() for name, entry in model.state_dict().items()}
    load_pretrained(model, saved(moved()))
    assert {name: entry.data_ptr() for name, entry in model.state_dict().items()} == before
    assert all(p.requires_grad and p.grad_fn is None for p in model.parameters())


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.9}], ids=str)
def test_checkpoint_of_a_run_gives_the_weights_that_it_selected(settings, tmp_path):
    folder = new_folder(tmp_path)
    trainer = trainer_of(epochs=2, **settings)
    trainer.fit(folder=folder)
    model = mlp()
    load_pretrained(model, folder.path / "checkpoints" / "best.pt")
    for ours, theirs in zip(model.parameters(), trainer.task.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_classifier_stays_fresh_where_the_file_knows_other_classes(saved):
    model, state = normed(), moved()
    state |= {"6.weight": torch.rand(1000, 8), "6.bias": torch.rand(1000)}
    before = {name: p.clone() for name, p in model[6].named_parameters()}
    loaded = load_pretrained(model, saved(state), num_classes=3)
    assert loaded.fresh == ("6.weight", "6.bias")
    assert "fresh: 6.weight, 6.bias" in str(loaded)
    assert all(torch.equal(p, before[name]) for name, p in model[6].named_parameters())
    assert holds(model, {n: s for n, s in state.items() if n[0] != "6"})


def test_classifier_of_as_many_classes_is_loaded(saved):
    model, state = normed(), moved()
    assert load_pretrained(model, saved(state), num_classes=3).fresh == ()
    assert torch.equal(model[6].weight, state["6.weight"])


@pytest.mark.parametrize(
    ("changes", "num_classes"),
    [
        ({"6.weight": (1000, 8), "6.bias": (1000,)}, None),  # no classifier
        ({"6.weight": (1000, 8), "6.bias": (1000,)}, 5),  # not of that many classes
        ({"6.weight": (1000, 9), "6.bias": (1000,)}, 3),  # from other features
        ({"6.weight": (1000, 8), "6.bias": (999,)}, 3),  # of two minds
        ({"0.weight": (9, 6), "0.bias": (9,)}, 3),  # another layer
        ({"0.weight": (8, 5)}, 3),  # other inputs
    ],
)
def test_other_shapes_are_refused_and_nothing_is_loaded(changes, num_classes, saved):
    model = normed()
    before = {name: entry.clone() for name, entry in model.state_dict().items()}
    state = moved() | {name: torch.rand(shape) for name, shape in changes.items()}
    name, shape = next(iter(changes.items()))
    own = list(before[name].shape)
    with pytest.raises(
        ValueError,
        match=rf"of another shape: \d \({name} {re.escape(f'{list(shape)} there')} "
        rf"and {re.escape(f'{own} here')}",
    ):
        load_pretrained(model, saved(state), num_classes=num_classes)
    assert holds(model, before)


def test_report_of_what_does_not_fit_counts_and_names(saved):
    state = {f"other.{i}": torch.rand(2) for i in range(5)} | {"0.weight": torch.rand(1, 6)}
    with pytest.raises(ValueError) as refused:
        load_pretrained(normed(), saved(state), num_classes=3)
    text = str(refused.value)
    assert re.match(r"\S+weights\.pth: ", text)
    assert "names and shapes must agree (missing: 13 (0.bias, 1.weight, 1.bias, ...); " in text
    assert "of another shape: 1 (0.weight [1, 6] there and [8, 6] here); " in text
    assert "unknown to the model: 5 (other.0, other.1, other.2, ...))" in text


def test_what_only_the_file_has_is_named_in_the_report(saved):
    state = moved() | {f"aux.{i}": torch.rand(2) for i in range(4)}
    loaded = load_pretrained(normed(), saved(state))
    assert loaded.unused == ("aux.0", "aux.1", "aux.2", "aux.3")
    assert str(loaded).endswith("in the file and not in the model: 4 (aux.0, aux.1, aux.2, ...)")


def test_module_that_is_called_module_keeps_its_name(saved):
    model = nn.ModuleDict({"module": nn.Linear(2, 2)})
    state = {"module.weight": torch.rand(2, 2), "module.bias": torch.rand(2)}
    load_pretrained(model, saved(state))
    assert holds(model, state)


class Payload:
    pass


def test_what_is_no_file_of_weights_is_refused_by_name(saved, tmp_path):
    whole = saved(moved(), "whole.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pth").write_text("no weights at all")
    saved({"a": Payload()}, "object.pth")
    saved(normed(), "module.pth")
    saved({}, "empty.pth")
    saved({"epoch": 3}, "numbers.pth")
    saved([torch.rand(2)], "list.pth")
    for name, message in {
        "missing.pth": "there is no such file",
        "half.pth": "cannot be read",
        "text.pth": "is no file that torch.save has written",
        "object.pth": r"holds an object of [\w.]*test_pretrained\.Payload beside its tensors",
        "module.pth": r"holds an object of torch\.nn\.\w",
        "empty.pth": "holds no state dict",
        "numbers.pth": "holds no state dict",
        "list.pth": "holds no state dict",
        "": "is a folder; name a file",
    }.items():
        path = tmp_path / name
        with pytest.raises(ValueError, match=f"{re.escape(str(path))}: ({message})"):
            load_pretrained(normed(), path)


def test_damaged_checkpoint_of_a_run_is_not_taken_for_a_good_one(tmp_path):
    folder = new_folder(tmp_path)
    trainer_of(epochs=1).fit(folder=folder)
    path = folder.path / "checkpoints" / "best.pt"
    content = bytearray(path.read_bytes())
    weights = trainer_of().task.model.state_dict()
    place = len(content) // 2
    content[place] ^= 255
    path.write_bytes(content)
    with pytest.raises((ValueError, RuntimeError), match=r"damaged|cannot be read|no plain"):
        load_pretrained(mlp(), path)
    assert weights.keys() == mlp().state_dict().keys()


def test_safetensors_are_read_where_the_package_is_there(tmp_path, monkeypatch):
    path, state = tmp_path / "model.safetensors", moved()
    path.write_bytes(b"x")
    fake = types.ModuleType("safetensors.torch")
    fake.load_file = lambda file: state if file == path else None
    monkeypatch.setitem(sys.modules, "safetensors", types.ModuleType("safetensors"))
    monkeypatch.setitem(sys.modules, "safetensors.torch", fake)
    model = normed()
    load_pretrained(model, path)
    assert holds(model, state)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ValueError, match="needs the package safetensors"):
        load_pretrained(model, path)


# -------------------------------------------------------------------- names of other people


def timm_vit(depth):
    """The names of timm's VisionTransformer, and torchvision's for each."""
    block = "encoder.layers.encoder_layer_{}."
    names = {
        "cls_token": "class_token",
        "pos_embed": "encoder.pos_embedding",
        "patch_embed.proj.weight": "conv_proj.weight",
        "patch_embed.proj.bias": "conv_proj.bias",
        "norm.weight": "encoder.ln.weight",
        "norm.bias": "encoder.ln.bias",
        "head.weight": "heads.head.weight",
        "head.bias": "heads.head.bias",
    }
    for i in range(depth):
        ours = block.format(i)
        for kind in ("weight", "bias"):
            names |= {
                f"blocks.{i}.norm1.{kind}": f"{ours}ln_1.{kind}",
                f"blocks.{i}.attn.qkv.{kind}": f"{ours}self_attention.in_proj_{kind}",
                f"blocks.{i}.attn.proj.{kind}": f"{ours}self_attention.out_proj.{kind}",
                f"blocks.{i}.norm2.{kind}": f"{ours}ln_2.{kind}",
                f"blocks.{i}.mlp.fc1.{kind}": f"{ours}mlp.0.{kind}",
                f"blocks.{i}.mlp.fc2.{kind}": f"{ours}mlp.3.{kind}",
            }
    return names


def vit(num_classes=3, **changes):
    sizes = dict(image_size=8, num_layers=2, num_heads=2, embed_dim=8, mlp_dim=12)
    return vit_cifar(num_classes, **(sizes | changes))


def test_timms_vision_transformer_is_known_by_its_names(saved):
    model, theirs = vit(), {ours: name for name, ours in timm_vit(2).items()}
    state = {name: torch.rand_like(entry) for name, entry in model.state_dict().items()}
    loaded = load_pretrained(model, saved({theirs[name]: t for name, t in state.items()}))
    assert (loaded.fresh, loaded.unused) == ((), ())
    assert holds(model, state)


def test_torchvisions_older_names_are_known(saved):
    for model, old in (
        (
            densenet_cifar(3, depth=10),
            lambda n: re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", n),
        ),
        (vit(), lambda n: n.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2.")),
    ):
        state = {n: torch.rand_like(t.float()) for n, t in model.state_dict().items()}
        renamed = {old(name): entry for name, entry in state.items()}
        assert renamed.keys() != state.keys()
        loaded = load_pretrained(model, saved(renamed))
        assert (loaded.fresh, loaded.unused) == ((), ())
        assert holds(model, {n: t for n, t in state.items() if "num_batches" not in n})


def test_what_reset_classifier_makes_anew_stays_fresh_where_the_file_knows_other_classes(saved):
    model, state = googlenet(3), googlenet(7).state_dict()
    before = {name: entry.clone() for name, entry in model.state_dict().items()}
    loaded = load_pretrained(model, saved(state))
    heads = ("aux1.fc2", "aux2.fc2", "fc")
    assert loaded.fresh == tuple(f"{n}.{kind}" for n in heads for kind in ("weight", "bias"))
    assert holds(model, {name: before[name] for name in loaded.fresh})
    assert holds(model, {name: state[name] for name in loaded.loaded})


@pytest.mark.parametrize("changes", [{"image_size": 12}, {"embed_dim": 4}, {"in_channels": 1}])
def test_other_shapes_than_reset_classifier_makes_are_refused(changes, saved):
    with pytest.raises(ValueError, match="of another shape"):
        load_pretrained(vit(), saved(vit(7, **changes).state_dict()))
    with pytest.raises(ValueError, match="of another shape"):
        load_pretrained(vit(), saved(vit(**changes).state_dict()))


# ----------------------------------------------------------- language models of Hugging Face


def filled(model):
    """The model's state dict with values of its own; what is tied stays equal."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.rand_like(parameter))
    return {name: entry.clone() for name, entry in model.state_dict().items()}


def gpt_char(**changes):
    return gpt.gpt_char(5, **(dict(sequence_length=6, embed_dim=8, num_layers=2) | changes))


def bert(*, num_classes=None):
    sizes = dict(sequence_length=6, embed_dim=8, num_layers=2, num_heads=2, mlp_dim=12)
    if num_classes:
        return bert_classifier(5, num_classes, **sizes)
    return char_bert(5, **sizes)


def test_published_files_of_gpt2_have_no_prefix_no_head_and_masks(saved):
    model, state = gpt_char(bias=True), filled(gpt_char(bias=True))
    published = {n.removeprefix("transformer."): t for n, t in state.items() if n[:2] != "lm"}
    masks = {}
    for i in range(2):
        masks |= {f"h.{i}.attn.bias": torch.ones(1, 1, 6, 6).tril()}
        masks |= {f"h.{i}.attn.masked_bias": torch.tensor(-1e4)}
    loaded = load_pretrained(model, saved(published | masks))
    assert holds(model, state)
    assert (loaded.fresh, set(loaded.unused)) == ((), set(masks))
    assert model.lm_head.weight is model.transformer.wte.weight


def test_published_files_of_llama_load_as_they_are_with_and_without_a_head(saved):
    for tied in (False, True):
        model, other = (llama_char(5, num_layers=2, tie_weights=tied) for _ in range(2))
        state = filled(other)
        if tied:
            del state["lm_head.weight"]
        buffers = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.rand(4)}
        loaded = load_pretrained(model, saved(state | buffers))
        assert holds(model, state)
        assert (loaded.fresh, loaded.unused) == ((), tuple(buffers))
    with pytest.raises(ValueError, match=r"\(missing: 1 \(lm_head.weight\)"):
        load_pretrained(llama_char(5, num_layers=2), saved(state))


def test_files_of_a_model_that_is_not_tied_are_refused_by_one_that_is(saved):
    state = filled(gpt_char())
    state["lm_head.weight"] = state["lm_head.weight"] + 1
    model = gpt_char()
    before = {name: entry.clone() for name, entry in model.state_dict().items()}
    message = r"one tensor here and several there: 2 \(transformer.wte.weight, lm_head.weight\)"
    with pytest.raises(ValueError, match=message):
        load_pretrained(model, saved(state))
    assert holds(model, before)


def first_names(state):
    """BERT's state dict as it was published first."""
    ends = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    old = {}
    for name, entry in state.items():
        end = next((end for end in ends if name.endswith(end)), "")
        old[name.removesuffix(end) + ends.get(end, "")] = entry
    return old


def test_published_files_of_bert_also_have_what_predicts_sentences(saved):
    more = {
        "bert.embeddings.position_ids": torch.arange(6)[None],
        "bert.pooler.dense.weight": torch.rand(8, 8),
        "bert.pooler.dense.bias": torch.rand(8),
        "cls.seq_relationship.weight": torch.rand(2, 8),
        "cls.seq_relationship.bias": torch.rand(2),
    }
    state = filled(bert())
    published = {n: t for n, t in state.items() if not n.startswith("cls.predictions.decoder")}
    assert len(published) == len(state) - 2  # tied: the embedding, and `cls.predictions.bias`
    assert first_names(published).keys() != published.keys()
    for file in (state, published, first_names(published)):
        model = bert()
        loaded = load_pretrained(model, saved(file | more))
        assert holds(model, state)
        assert (loaded.fresh, set(loaded.unused)) == ((), set(more))


def test_bert_without_its_head_begins_a_classifier(saved):
    state = filled(bert(num_classes=3))
    body = {n.removeprefix("bert."): t for n, t in state.items() if n.startswith("bert.")}
    model = bert(num_classes=3)
    model.optional_weights = ("classifier.*",)
    loaded = load_pretrained(model, saved(body))
    assert (loaded.fresh, loaded.unused) == (("classifier.weight", "classifier.bias"), ())
    assert holds(model, {n: t for n, t in state.items() if n.startswith("bert.")})


@pytest.mark.parity
def test_files_that_hugging_face_writes_are_read(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    gpt2 = transformers.GPT2Config(vocab_size=5, n_positions=6, n_embd=8, n_layer=2, n_head=4)
    small = transformers.BertConfig(
        vocab_size=5,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=6,
        type_vocab_size=1,
    )
    for kind, config, model in (
        (transformers.GPT2Model, gpt2, gpt_char(bias=True)),
        (transformers.GPT2LMHeadModel, gpt2, gpt_char(bias=True)),
        (transformers.BertForPreTraining, small, bert()),
    ):
        other = kind(config)
        other.save_pretrained(tmp_path)
        assert load_pretrained(model, tmp_path / "model.safetensors").fresh == ()
        theirs = other.state_dict()
        for name, entry in model.state_dict().items():
            if (found := theirs.get(name, theirs.get(name.split(".", 1)[1]))) is not None:
                assert torch.equal(entry, found), name
