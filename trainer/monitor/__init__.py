"""Watching a run: what a training shows while it runs, and the web page and the table that show it."""
