"""Signals, detectors, risk and selection: knowing without ground truth."""
