"""Answers to the questions that the study files of this folder fix before their runs, each with its interval.

    python -m studies.answers runs/results --data data/cmu

Everything here reads finished run folders; nothing here is read by a run. Truth is opened through
``tips_dist.evaluation`` alone, after everything has been decided.
"""
