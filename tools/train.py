"""Train the model of a config."""

from pcm_plugin.commands.train import main

if __name__ == "__main__":
    main()
