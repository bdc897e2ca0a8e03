"""The rules of the doctor, one module for each area: from ``Facts`` to findings. Pure."""
