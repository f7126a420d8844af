"""Run the rows of a table of the papers that have data and weights: ours next to the published."""

from pcm_plugin.commands.paper_table import main

if __name__ == "__main__":
    main()
