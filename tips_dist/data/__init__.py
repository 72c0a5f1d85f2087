"""2D poses: read without trust, checked, written atomically.

``store`` is the pose file, ``procedural`` makes motion without any data, ``importers`` convert data sets (one file
each, one contract), ``cameras`` look at 3D motion. ``instants`` finds the views of one moment; ``hygiene`` and
``anatomy`` say what is wrong with poses, ``inspection`` shows it. ``hdf5``, ``npz`` and ``json_stream`` read files of
others.
"""
