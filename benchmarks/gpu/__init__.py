"""The operators timed on a GPU against what the hardware allows; run by `make bench-gpu`.

`bounds` is the arithmetic of what a call must read, write and multiply; `probes` measures what the
device can do of each; `cases` is what is run and beside what, `gate` what must agree before it is
timed; `clock` times; `measure` makes rows; `store` keeps them; `tables` writes docs/performance.md.
"""
