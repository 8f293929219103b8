"""The HTTP face: FastAPI over the library, and nothing of the domain in it.

`create_app` wires, `conventions` does what every answer has in common, `routes/` has one file per resource.
"""
