"""`mauto`: everything an operator does without SQL, one file per group of commands.

Promise: every change is written to the audit log as `cli:<user of the system>`; a known fault is one line and an exit
code, never a traceback: 0 done, 1 found something or not possible as things stand, 2 not understood or misconfigured,
75 the database cannot be reached. The verbs are those of the domain; nothing here has a rule of its own.
"""
