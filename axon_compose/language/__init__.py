"""Text to a validated `Document`, and back: `source`, `document`, `config`, `schema` and `layout`.

What comes in: bytes of YAML or JSON, and the records of the registry. What goes out: nodes with their places, a
`Document`, a JSON Schema, text. It never imports mlx, and knows no layer by name.
"""
