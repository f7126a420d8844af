"""Command-line programs, one module per command.

The module of a command contains its arguments and the function ``main``. At the top it imports only
what these need, so that ``--help`` and usage errors are printed without importing torch or
MMEngine. After the arguments are parsed, ``main`` imports the code that does the work: other
modules of this package (:mod:`.training` for ``pcm train``) or functions of the library.
"""
