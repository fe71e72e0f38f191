"""The sections of benchmarks/gpu.py: what only a GPU shows, each run in a process of its own.

sections    which there are, in which order, and how long each may take
checks      a measured value beside the expected one
process     a section in a process of its own, with a limit; the report
models      models of random weights, and batches for them
scoring     the head: exactness against float64, time over the two products
runs        `dgpo train` itself: the default run, a kill and a resume
memory      planned beside measured, out of memory, a reference that rests in CPU memory
steps       a whole step, decoding, torch.compile
"""
