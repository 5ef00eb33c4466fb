"""Restorers and operations, each one a module from a `RestorationState` to a `RestorationState`."""
