"""The documentation: Markdown, what the site takes from the code, and what mkdocs is told besides."""
