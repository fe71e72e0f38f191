"""A tokenizer of one token a character, with a chat template: ids and texts can be worked out by hand."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

CHAT = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
SPECIAL = ["<s>", "</s>", "<|start|>", "<|turn|>"]


def tokenizer_of(*, adds_bos: bool, chat: bool = True) -> Any:
    """One token a character; with `adds_bos` the post-processor puts <s> first, as Llama's does."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *map(chr, range(32, 127)), "\n"])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.add_special_tokens(SPECIAL)
    if adds_bos:
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="?")
    tokenizer.chat_template = CHAT if chat else None
    return tokenizer
