"""Command-line programs, one module per command.

The module of a command contains its arguments and the function ``main``. At the top it imports only
what these need, so that ``--help`` and usage errors answer at once: no torch and no MMEngine.
``main`` imports what does the work after the arguments are parsed: other modules of this package
(:mod:`.training` for ``pcm train``) or functions of the library.
"""
