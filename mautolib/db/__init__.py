"""The door to PostgreSQL: engine, migrations, named statements, COPY, tables and the embedded server.

Nothing above this package opens a connection by other means; nothing here knows a domain.
"""
