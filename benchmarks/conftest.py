"""Threads that wait give their core to the others: OpenMP reads this once, when torch is imported."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")
