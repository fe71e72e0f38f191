"""Rollouts from vLLM servers: token ids in, ids and log-probs out, the policy's weights pushed before each step."""
