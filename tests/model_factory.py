"""Small random models in transformers format, with a byte-level BPE tokenizer trained on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

TEXT = ["Solve the following problem: 12 + 30 = 42. Answer: 42", "The quick brown fox counts 0 1 2 3 4 5 6 7 8 9."]


SMALL = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": None,
}
ARCHITECTURES: dict[str, Any] = {
    "llama": lambda: transformers.LlamaConfig(**SMALL),
    "qwen3": lambda: transformers.Qwen3Config(**SMALL, head_dim=16, tie_word_embeddings=True),
    "gemma2 (softcap)": lambda: transformers.Gemma2Config(**SMALL, head_dim=16, final_logit_softcapping=3.0),
    "cohere (scaled)": lambda: transformers.CohereConfig(**SMALL, logit_scale=0.25),
    "granite (divided)": lambda: transformers.GraniteConfig(**SMALL, logits_scaling=4.0),
    "phi (head bias)": lambda: transformers.PhiConfig(**SMALL | {"num_key_value_heads": 2}),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=512, n_embd=32, n_layer=2, n_head=2, n_positions=128),
}


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


class HalvedConfig(transformers.Qwen2Config):
    model_type = "halved"


class Halved(transformers.Qwen2ForCausalLM):
    """A model that does something of its own between body and logits."""

    config_class = HalvedConfig

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits / 2
        return output


def save_halved_model(folder: Path) -> Path:
    """The random model, its type that of `Halved`."""
    transformers.AutoConfig.register("halved", HalvedConfig, exist_ok=True)
    transformers.AutoModelForCausalLM.register(HalvedConfig, Halved, exist_ok=True)
    save_random_model(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "halved", "architectures": ["Halved"]}))
    return folder


def save_plain_model(path: Path, hidden: int, layers: int, vocabulary: int) -> None:
    """A Qwen2 of random weights as transformers draws them, with heads of 32, the head tied to the embedding."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).save_pretrained(path)
    byte_level_tokenizer().save_pretrained(path)
