"""Count the words of a caption file and keep the frequent ones as a captioner's vocabulary."""

from pcm_plugin.commands.build_vocabulary import main

if __name__ == "__main__":
    main()
