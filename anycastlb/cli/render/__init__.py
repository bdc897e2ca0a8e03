"""What the commands print: pure functions from answers of the API to lines."""
