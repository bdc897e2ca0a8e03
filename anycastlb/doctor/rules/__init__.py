"""The rules of the doctor: pure functions from collected facts to findings."""
