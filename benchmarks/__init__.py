"""The library timed beside what a user would write without it; run by `make bench`.

`contenders` holds the alternatives, `cases` what is run, `agreement` the gate before any timing,
`bench_*` the pytest-benchmark files, `compare` the interleaved comparison that docs/performance.md
shows.
"""
