"""Truth: the only floor that opens 3D ground truth, after everything is decided.

``truth`` reads it, ``metrics`` are the errors, ``measuring`` applies them to networks and whole histories, ``evaluate``
writes evaluation.json and curves.npz. How good the decisions were: ``histories`` with ``labels`` of what truly
happened, ``choices`` and ``rules`` to compare with, and the ``scorecard`` of all.
"""
