"""Everything that knows both Airflow and mautolib: connection, conventions, error translation, watcher, UI.

Each module is imported by every Airflow component as a plugin file, so none imports anything heavy at its top.
"""
