"""Generate captions for the test split of a config and score them."""

from pcm_plugin.commands.test import main

if __name__ == "__main__":
    main()
