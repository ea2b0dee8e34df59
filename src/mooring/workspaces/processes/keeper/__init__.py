"""The keeper program, one for each workspace. Runs under `python -I -S`: the standard library and no third parties."""
