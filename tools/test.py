"""Caption the test split of a config with a checkpoint, and score the captions."""

from pcm_plugin.commands.test import main

if __name__ == "__main__":
    main()
