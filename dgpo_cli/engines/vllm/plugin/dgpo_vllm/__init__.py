"""The part of dgpo that runs in vLLM's interpreter: the standard library, torch, safetensors and vLLM alone."""
