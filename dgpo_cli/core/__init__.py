"""Pure maths: tensors and floats in, tensors out. No config, no I/O, no logging, no global state."""
