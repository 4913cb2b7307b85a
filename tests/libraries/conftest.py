"""Scripts for libraries that are not installed here; `tests/test_libraries.py` runs them."""

collect_ignore_glob = ["*.py"]
