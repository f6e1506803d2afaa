"""The built-in components, registered as any other plugin is."""
