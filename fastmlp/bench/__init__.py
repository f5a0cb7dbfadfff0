"""The benchmark: fastmlp against its peers, on the same work, in one run. ``fastmlp bench``.

==================  ============================================================================
`workloads`         what is measured: one record a row of the table, with its targets
`problems`          the data of a workload, and generated data where the real data is missing
`peers`             who is measured: one record and one small class a peer
`worker`            a peer's own process; `remote` the measuring process's end of it
`programs`          whole processes, from start to exit
`measuring`         rounds in which the peers take turns; `results` what they give
`peak`, `machine`   what the processor can do at most, and which one it is
`table`, `chart`    results in the terminal, and as bars
`kernels`           kernel by kernel against NumPy
`command`           the command line
==================  ============================================================================

Each peer works in a process of its own, because thread pools disturb each other: the workers of one
library go on spinning for some milliseconds after a call and take the processor from the next.
"""
