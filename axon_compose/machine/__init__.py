"""What this computer has: free memory, the BLAS that MLX uses, and human-readable sizes."""
