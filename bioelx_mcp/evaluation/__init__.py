"""Benchmarks of the field: read a dataset, run the Linker over it, score distinct concepts."""
