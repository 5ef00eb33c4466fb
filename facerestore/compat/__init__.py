"""Doors to optional packages: each is imported in one place, when it is needed."""
