"""Reading run folders: what a study found, for people. Takes typed records, decides nothing.

``runs`` and ``summary`` make the numbers, ``answer`` says them in sentences, ``tables`` lays them out and ``formats``
prints them (terminal, Markdown, LaTeX, CSV); ``html`` writes report.html from ``figures``, ``search_figures``,
``anatomy`` and the template page.html.jinja. ``live`` is the view while a study runs; ``style`` the colours of all.
"""
