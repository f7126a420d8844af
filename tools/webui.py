"""Caption images in the browser."""

from pcm_plugin.commands.webui import main

if __name__ == "__main__":
    main()
