"""Knowing without ground truth: plain numbers in, verdicts and a risk out. Reads no run folder.

``signals`` are measured on the networks at an evaluation step, with ``agreement`` (between views, in time) and
``distances`` (to real poses); ``detectors`` turn their series into one of the ``verdicts``; ``risk`` makes one number
of them, by which checkpoints are kept and trials compared.
"""
