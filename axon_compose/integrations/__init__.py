"""Where the model files of folders built by version 0.1 look for the adapter; nothing else lives here."""
