"""Sweeps (`-m`): which jobs there are, how many run at once, what is kept when a sweep or its machine is killed."""
