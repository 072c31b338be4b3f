"""Questions about scenes: what is asked, in which words, and how the pictures are marked. `TASKS` lists the kinds."""
