"""Make one web page of a training: curves, scores, training pairs, captions from best to worst."""

from pcm_plugin.commands.report import main

if __name__ == "__main__":
    main()
