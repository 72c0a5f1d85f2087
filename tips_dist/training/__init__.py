"""Training: one trial, its seeds packed into one program, on one device or several.

``loop`` is THE loop: read it top to bottom. ``step`` is one adversarial step on packed seeds, ``state`` all that moves,
``averaging`` the weights that are judged; ``sampling`` draws batches as a function of (seed, step). ``records`` writes
the trial's folder and ``checkpoint`` its resumable state, so that a resumed run equals one that was never stopped.
``engine``, ``execution``, ``group`` and ``follower`` spread the step over devices.
"""
