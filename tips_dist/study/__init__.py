"""A study: the only floor that knows of Ray and Optuna.

``run`` starts and resumes (read :func:`.run.resume` to know the whole path); ``search`` asks Optuna for trials in the
``space``, ``tuning`` lets Ray Tune place them, ``trainable`` runs one on a worker and ``spread`` one over several.
``folder`` begins a run folder, ``status`` reads where it stands; ``cluster``, ``jobs`` (with ``packing``) and
``doctor`` deal with machines.
"""
