"""The library timed beside what a user would write without it; run by `make bench`.

`cases` is what is run, `inputs` on what, `operators` with which contenders (`contenders`,
`released` and `peers` hold the alternatives), `agreement` the gate before any timing. `compare`
measures all in one run, `table` makes tables, picture and CSV of what it stored; `bench_*` are the
same cases under pytest-benchmark, for one operator at a time.
"""
