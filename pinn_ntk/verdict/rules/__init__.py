"""The rules of the verdict, one small function a cause, in the order in which they are asked.

May import: verdict, analysis.
"""
