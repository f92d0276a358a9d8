"""Kill rounds for a capture of topics: what they run in (scene.py), the capture as a process (child.py)."""
