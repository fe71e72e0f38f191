"""What a run will take before anything is loaded: pure arithmetic on an architecture and a configuration, no torch."""
