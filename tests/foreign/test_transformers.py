"""Models of Hugging Face transformers, built from their configurations with random weights: converted, trained a step, refused by name at export.

Layers on either side of attention are quantized. Attention itself multiplies two computed values and stays float, which a packed network does not hold.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lobit
from lobit.errors import ExportError, LobitError
from lobit.nn import QuantizedLayer

transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install 'lobit[dev]'")

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def vit():
    config = transformers.ViTConfig(**SMALL, image_size=16, patch_size=8, num_labels=4)
    model = transformers.ViTForImageClassification(config)
    return model, {"pixel_values": torch.randn(4, 3, 16, 16), "labels": torch.arange(4)}


def bert():
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(**SMALL, vocab_size=50, max_position_embeddings=16, num_labels=3)
    )
    return model, {"input_ids": torch.randint(50, (4, 10)), "labels": torch.arange(4) % 3}


def llama():
    config = transformers.LlamaConfig(**SMALL, vocab_size=50, num_key_value_heads=1, max_position_embeddings=16, tie_word_embeddings=True)
    words = torch.randint(50, (4, 10))
    return transformers.LlamaForCausalLM(config), {"input_ids": words, "labels": words}


def gpt2():
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=50, n_positions=16))
    words = torch.randint(50, (4, 10))
    return model, {"input_ids": words, "labels": words}


BLOCKS = {
    vit: ("vit.layers.{}.", ("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2")),
    bert: (
        "bert.encoder.layer.{}.",
        (
            *(f"attention.self.{name}" for name in ("query", "key", "value")),
            "attention.output.dense",
            "intermediate.dense",
            "output.dense",
        ),
    ),
    llama: (
        "model.layers.{}.",
        (*(f"self_attn.{name}_proj" for name in "qkvo"), *(f"mlp.{name}_proj" for name in ("gate", "up", "down"))),
    ),
}
ENDS = {
    vit: ("vit.embeddings.patch_embeddings.projection", "classifier"),
    bert: ("bert.pooler.dense", "classifier"),
    llama: ("lm_head",),
}


def trained(build, bits="W4A8"):
    """A converted model after one step, and the gradients of its quantized layers."""
    torch.manual_seed(0)
    model, batch = build()
    report = lobit.quantize_(model, bits)
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    return model, batch, report, losses


@pytest.mark.parametrize("build", [vit, bert, llama])
def test_every_linear_layer_is_converted_and_trained(build):
    model, _, report, losses = trained(build)
    block, layers = BLOCKS[build]
    expected = {block.format(index) + layer for index in range(2) for layer in layers} | set(ENDS[build])
    assert set(report.quantized) == expected
    assert losses[-1] < losses[0]
    for path, layer in model.named_modules():
        if isinstance(layer, QuantizedLayer) and layer.is_quantized:
            for gradient in (layer.weight.grad, layer.weight_quantizer.step.grad, layer.input_quantizer.step.grad):
                assert torch.isfinite(gradient).all(), path
            assert layer.weight.grad.abs().sum() > 0, path
            assert layer.input_quantizer.step.grad.abs() > 0, path


def test_tied_word_embeddings_stay_tied():
    model, *_ = trained(llama)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert type(model.model.embed_tokens) is nn.Embedding


def test_conv1d_of_transformers_is_left_by_name():
    _, _, report, losses = trained(gpt2)
    assert losses[-1] < losses[0]
    rows = {row.path: row for row in report.rows}
    for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
        row = rows[f"transformer.h.0.{name}"]
        assert (row.kind, row.replaced) == ("Conv1D", False)
        assert "a class of transformers.pytorch_utils" in row.note
    assert report.quantized == ("lm_head",)


def test_a_policy_of_patterns_for_a_transformer():
    torch.manual_seed(0)
    model, batch = vit()
    report = lobit.quantize_(model, {"*.mlp.*": "W2A4"}, first=None, last=None)
    assert {path.rsplit(".", 1)[-1] for path in report.quantized} == {"fc1", "fc2"}
    assert torch.isfinite(model(**batch).loss)


class Logits(nn.Module):
    """The model's logits for pictures, or for embedded words given as one row a sample, as an exported net has its input."""

    def __init__(self, model, words=0):
        super().__init__()
        self.model, self.words = model, words

    def forward(self, x):
        if self.words:
            return self.model(inputs_embeds=x.unflatten(1, (self.words, -1))).logits
        return self.model(x).logits


@pytest.mark.parametrize("build", [vit, bert, llama])
def test_export_is_refused_with_the_operator_or_layer_and_where_it_stands(build, tmp_path):
    model, batch, *_ = trained(build)
    model = Logits(model, 0 if build is vit else 10).eval()
    x = batch["pixel_values"] if build is vit else torch.randn(4, 320)
    with pytest.raises(ExportError, match=r"operator aten\.\w+.* in (module '[\w.]+'|the model)|layer '[\w.]+' \(\w+\) has no place"):
        lobit.export(model, x, tmp_path / "net.lobit")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("build", [bert, llama])
def test_words_as_inputs_are_refused_by_their_embedding(build, tmp_path):
    model, batch, *_ = trained(build)
    with pytest.raises(LobitError, match=r"layer '[\w.]*embed\w*' \(Embedding\) has no place"):
        lobit.export(model.eval(), batch["input_ids"], tmp_path / "net.lobit")


def resnet(layer_type):
    config = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32], depths=[1, 2], num_labels=4, layer_type=layer_type, downsample_in_first_stage=True
    )
    return transformers.ResNetForImageClassification(config)


CONVOLUTIONAL = {
    "resnet basic": lambda: resnet("basic"),
    "resnet bottleneck": lambda: resnet("bottleneck"),
    "mobilenet v1": lambda: transformers.MobileNetV1ForImageClassification(
        transformers.MobileNetV1Config(image_size=32, depth_multiplier=0.125, num_labels=4)
    ),
    "mobilenet v2": lambda: transformers.MobileNetV2ForImageClassification(
        transformers.MobileNetV2Config(image_size=32, depth_multiplier=0.125, min_depth=4, num_labels=4)
    ),
}


@pytest.mark.parametrize(
    ("name", "bits"), [("resnet basic", "W1A1"), ("resnet bottleneck", "W4A4"), ("mobilenet v1", "W4A4"), ("mobilenet v2", "W2A3")]
)
def test_convolutional_nets_are_trained_a_step_exported_and_verified(name, bits, tmp_path):
    torch.manual_seed(0)
    model, x = CONVOLUTIONAL[name](), torch.randn(8, 3, 32, 32)
    report = lobit.quantize_(model, bits)
    products = [path for path, module in model.named_modules() if isinstance(module, QuantizedLayer)]
    assert set(report.quantized) == set(products)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        model(pixel_values=x, labels=torch.arange(8) % 4).loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
        optimizer.step()
    net = Logits(model).eval()
    lobit.export(net, x, tmp_path / "net.lobit")
    verified = lobit.verify(net, tmp_path / "net.lobit", x)
    assert verified.ok
    assert verified.equal == verified.compared
