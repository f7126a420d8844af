"""Caption image files and folders."""

from pcm_plugin.commands.caption import main

if __name__ == "__main__":
    main()
