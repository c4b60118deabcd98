"""What Triton's Python models import as `triton_python_backend_utils`, one file for each kind of thing."""
