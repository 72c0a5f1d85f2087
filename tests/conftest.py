"""One thread per test process: small networks gain nothing from more, and a busy machine makes more ruinously slow."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
