"""``python -m pcm_plugin``, which is the program ``pcm``."""

from pcm_plugin.cli import main

if __name__ == "__main__":
    main()
