"""What is installed: the wheel, the Debian package and the units, looked at without running them."""
