"""Templates: mail texts written by editors, compiled once, filled in for each person.

`compile.compile_template` checks and compiles, `render.render_limited` renders for a preview in a process with
limits, `links` rewrites links and adds pixel and footer, `text` makes the plain part, `catalogue` keeps templates
and their versions. A template sees only plain copies of data and reaches nothing else.
"""
