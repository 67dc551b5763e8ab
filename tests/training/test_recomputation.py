import pytest
import torch
from torch import nn

from tests.training.test_blocks import gpt, unet, vit
from tests.training.tiny import Samples, mlp, trainer_of, weights
from zoo.models.transformer.bert import bert_classifier
from zoo.models.transformer.llama import llama_char
from zoo.models.transformer.transformer import transformer_multi30k
from zoo.models.vision.resnet_cifar import resnet20
from zoo.training.recomputation import recompute_blocks


def translator():
    return transformer_multi30k(11, 13, embed_dim=8, num_heads=2, mlp_dim=8, dropout=0.3)


def llama():
    sizes = {"num_layers": 3, "embed_dim": 8, "num_heads": 2, "num_kv_heads": 2, "mlp_dim": 16}
    return llama_char(7, sequence_length=8, **sizes)


def bert():
    return bert_classifier(7, 3, embed_dim=8, num_layers=3, num_heads=2, mlp_dim=8, dropout=0.3)


def inputs_of(model: nn.Module) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    if type(model).__name__ in ("GPT", "Llama", "BertForSequenceClassification"):
        return (torch.randint(7, (4, 8), generator=generator),)
    images = torch.randn(4, 1, 8, 8, generator=generator)
    if type(model).__name__ == "DenoisingUNet":
        return images, torch.arange(4.0)
    if type(model).__name__ == "VisionTransformer":
        return (images,)
    words = torch.randint(4, 11, (2, 4, 6), generator=generator)
    return words[0], words[1]


def run(model: nn.Module) -> tuple[list[torch.Tensor], int]:
    """The gradients, and the bytes that are kept for the backward pass besides the parameters."""
    held, own = {}, {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(3)  # of dropout
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(*inputs_of(model)).square().mean()
    kept = sum(held.values())
    loss.backward()
    return [p.grad.clone() for p in model.parameters()], kept


@pytest.mark.parametrize("build", [gpt, llama, bert, vit, unet, translator])
def test_recomputed_blocks_have_equal_gradients_and_keep_less(build):
    torch.manual_seed(1)
    model = build().train()
    for parameter in model.parameters():  # Those that begin at zero have nothing to say.
        nn.init.normal_(parameter, std=0.2)
    plain, kept = run(model)
    model.zero_grad()
    names = list(model.state_dict())
    assert recompute_blocks(model) >= 2
    recomputed, kept_now = run(model)
    for before, after in zip(plain, recomputed, strict=True):
        assert torch.equal(before, after)
    assert kept_now < 0.5 * kept
    assert list(model.state_dict()) == names


def test_what_is_kept_no_longer_grows_with_what_a_block_holds():
    deep, deeper = gpt(num_layers=2), gpt(num_layers=4)
    recompute_blocks(deep)
    recompute_blocks(deeper)
    grown = run(deeper)[1] - run(deep)[1]
    assert grown == 2 * 4 * 8 * 8 * 4  # the inputs of two blocks: batch, time, width, bytes


def test_blocks_are_wrapped_once_however_many_trainers_there_are():
    model = gpt()
    assert recompute_blocks(model) == 3
    first = [block.forward for block in model.transformer.h]
    assert recompute_blocks(model) == 3
    assert [block.forward for block in model.transformer.h] == first


def test_blocks_with_batch_statistics_stay_as_they_are():
    """A second pass would count the batch twice."""
    assert recompute_blocks(resnet20()) == 0


def test_a_network_without_blocks_is_refused_in_a_sentence():
    expected = (
        r"^activation_checkpointing=true: MLP repeats no block that could be computed again; "
        "use activation_checkpointing=false$"
    )
    with pytest.raises(ValueError, match=expected):
        trainer_of(activation_checkpointing=True)


def blocks() -> nn.Module:
    torch.manual_seed(5)
    repeated = nn.Sequential(*(mlp_block() for _ in range(3)))
    return nn.Sequential(nn.Linear(6, 6), repeated, nn.Linear(6, 3))


def mlp_block() -> nn.Module:
    block = mlp(dropout=0.3)
    block.classifier = nn.Linear(8, 6)
    return block


def test_a_run_with_recomputed_blocks_ends_with_equal_weights():
    ends = []
    for is_on in (False, True):
        model = blocks()
        trainer = trainer_of(model, Samples().setup(), activation_checkpointing=is_on, epochs=2)
        trainer.fit()
        ends.append(weights(model))
    assert torch.equal(*ends)
