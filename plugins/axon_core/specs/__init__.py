"""What the compiler knows of the built-in components: options, shapes and caches, without mlx."""
