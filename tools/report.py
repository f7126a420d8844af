"""Write a web page about one training run."""

from pcm_plugin.commands.report import main

if __name__ == "__main__":
    main()
