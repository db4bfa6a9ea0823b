"""Language models of the zoo."""

from __future__ import annotations

import pytest
import torch

from lobit import models
from lobit import nn as lnn
from lobit.data import streams, text_of
from lobit.optim import clip_latent_weights, parameter_groups


@pytest.mark.parametrize("bits", [None, "W1A1", "W2A3", "W4A4"])
def test_a_step_trains_every_parameter_and_gives_logits_of_each_word(bits):
    model = models.create("ptb-lstm", bits=bits, words=50, units=12, layers=2, dropout=0.3)
    words = torch.randint(50, (7, 3))
    logits, state = model(words)
    assert logits.shape == (7, 3, 50)
    logits, _ = model(words, state)
    logits.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    assert model.lstm.is_quantized == (bits is not None)


def test_the_papers_net_has_one_layer_of_300_units_over_10000_words():
    info = models.model_info("ptb-lstm")
    assert info.kind == "words"
    assert models.list_models(kind="words") == ["ptb-lstm"]
    assert "ptb-lstm" not in models.list_models()
    model = models.create("ptb-lstm", bits="W2A3")
    assert model.embedding.weight.shape == (info.num_classes, 300) == (10000, 300)
    assert model.lstm.num_layers == 1
    assert isinstance(model.lstm, lnn.LSTM)
    assert str(model.lstm.weight_quantizers["weight_hh_l0"].code_type) == "signed2"
    assert str(model.lstm.hidden_quantizers["hidden_l0"].code_type) == "signed3"


def test_a_tiny_text_is_learnt_by_heart():
    torch.manual_seed(0)
    text = text_of("tiny", "a rose is a rose and not a bird that is a rose\n" * 12, "a\n", "a\n")
    model = models.create("ptb-lstm", bits="W4A4", words=len(text.words), units=24)
    optimizer = torch.optim.Adam(parameter_groups(model, lr=1e-2))
    losses = []
    for _ in range(40):
        state = None
        for words, following in streams(text.train, batch=4, steps=13):
            logits, state = model(torch.tensor(words), state)
            state = tuple(part.detach() for part in state)
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(following).flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            clip_latent_weights(model)
            losses.append(loss.item())
    assert losses[-1] < 0.1 < 1 < losses[0]


def test_eval_word_by_word_is_eval_of_the_whole():
    torch.manual_seed(0)
    model = models.create("ptb-lstm", bits="W4A4", words=50, units=12, layers=2)
    words = torch.randint(50, (7, 3))
    model(words)
    model.eval()
    with torch.no_grad():
        whole, _ = model(words)
        state = None
        for step in range(7):
            logits, state = model(words[step : step + 1], state)
            assert torch.equal(logits[0], whole[step])
