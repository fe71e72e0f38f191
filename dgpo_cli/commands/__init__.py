"""One module a command: from its configuration to objects to a run."""
