"""Compare a captioner with models of transformers."""

from pcm_plugin.commands.compare import main

if __name__ == "__main__":
    main()
