"""Layers that are compiled or compute again belong to one model alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dgpo_cli.models.adapted_layers import adapt_layers
from dgpo_cli.models.frozen import frozen_copy
from dgpo_cli.models.loading import load_model


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own imports
def test_a_copy_of_a_compiled_model_computes_with_its_own_weights(random_model: Path) -> None:
    model = load_model(str(random_model))
    adapt_layers(model.model, checkpointing=True, compiled=True)
    reference = frozen_copy(model)
    ids = torch.tensor([[5, 6, 7]])
    with torch.compiler.set_stance("force_eager"), torch.no_grad():  # what is compiled is not the question
        before = reference.hidden_states(ids)
        for weight in model.model.parameters():
            weight.mul_(1.5)
        assert torch.equal(reference.hidden_states(ids), before)
        assert not torch.equal(model.hidden_states(ids), before)
