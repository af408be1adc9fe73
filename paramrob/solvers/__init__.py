"""Solvers of the encoded formula, one file each, every one of them in a process of its own."""
