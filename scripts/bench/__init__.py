"""Benchmarks of pastryd on real sockets and disks; `python scripts/bench --help` tells how."""
