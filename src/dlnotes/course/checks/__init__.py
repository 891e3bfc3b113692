"""Visible checks of the exercises, built from the master texts; see docs/exercises.md."""
