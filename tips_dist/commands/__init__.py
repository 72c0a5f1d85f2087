"""What each command does after parsing: one function per command, put together from the floors below.

``study`` runs and resumes, ``training`` trains without Ray, ``jobs`` submits; ``reading`` shows run folders,
``deciding`` redoes a decision without truth, ``evaluating`` alone opens truth; ``weights``, ``datasets`` and ``doctor``
need no run. ``using`` and ``options`` are parsing that ``cli.py`` shares; ``address`` fetches what a command reads,
``output`` prints.
"""
