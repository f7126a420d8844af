"""Run the rows of a table of the papers, and print own and published scores."""

from pcm_plugin.commands.paper_table import main

if __name__ == "__main__":
    main()
