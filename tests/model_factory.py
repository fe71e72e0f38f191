"""Small random models in transformers format, with a byte-level BPE tokenizer trained on the spot."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

TEXT = ["Solve the following problem: 12 + 30 = 42. Answer: 42", "The quick brown fox counts 0 1 2 3 4 5 6 7 8 9."]


def byte_level_tokenizer(*, pad_is_eos: bool = False) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<eos>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>" if pad_is_eos else "<pad>"
    )


def save_random_model(
    folder: Path,
    *,
    vocab_size: int = 512,
    hidden_size: int = 32,
    layers: int = 2,
    seed: int = 0,
    pad_is_eos: bool = False,
    hostile: bool = False,
    scale: float = 1.0,
    max_context: int = 512,
    tied: bool = True,
) -> Path:
    """A Qwen2 of random weights. `hostile` gives it a generation_config that would change every sample."""
    torch.manual_seed(seed)
    tokenizer = byte_level_tokenizer(pad_is_eos=pad_is_eos)
    config = Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=max_context,
        tie_word_embeddings=tied,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,  # an id here would zero a row of the embedding and so change the weights
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(scale * 10)  # random logits that are not all alike
    if hostile:
        model.generation_config = GenerationConfig(
            do_sample=True,
            repetition_penalty=1.8,
            temperature=0.1,
            top_k=2,
            top_p=0.3,
            eos_token_id=[tokenizer.eos_token_id],
            pad_token_id=tokenizer.pad_token_id,
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
