"""``fedpeft doctor``: checks of a machine, its kit and its site file."""
