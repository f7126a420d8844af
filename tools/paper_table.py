"""Run the rows of a paper's table; print own and published scores."""

from pcm_plugin.commands.paper_table import main

if __name__ == "__main__":
    main()
