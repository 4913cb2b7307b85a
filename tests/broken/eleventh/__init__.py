"""PINNs from many groups, broken one by one."""

from tests.broken.eleventh.runs import ELEVENTH

__all__ = ["ELEVENTH"]
