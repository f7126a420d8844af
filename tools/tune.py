"""Choose the settings of the search on the validation split."""

from pcm_plugin.commands.tune import main

if __name__ == "__main__":
    main()
