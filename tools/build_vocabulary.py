"""Build a vocabulary from the frequent words of captions."""

from pcm_plugin.commands.build_vocabulary import main

if __name__ == "__main__":
    main()
