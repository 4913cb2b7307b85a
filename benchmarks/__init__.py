"""Benchmarks, apart from the tests: they need an idle machine and judge nothing but speed."""
