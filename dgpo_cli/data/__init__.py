"""Prompts: from the bundled task, from files and from the hub; templates and tokenisation."""
