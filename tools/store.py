"""Inspect, verify, merge and export feature stores."""

from pcm_plugin.commands.store import main

if __name__ == "__main__":
    main()
