"""What this computer has: free memory, the BLAS that MLX uses, and sizes as people write them."""
