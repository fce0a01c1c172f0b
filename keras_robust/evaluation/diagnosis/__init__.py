"""Is robust accuracy real? One check a function, one story a file; `_diagnosis.py` runs them."""
