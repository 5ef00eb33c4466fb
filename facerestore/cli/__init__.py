"""The command line. One module a command; torch is imported inside commands only, so that help is instant.

May import everything. Nothing imports it.
"""
