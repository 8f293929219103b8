"""Speaking to the outside over HTTP: which addresses may be reached, and how.

Here is the guard that everything that fetches a URL goes through: certificates and confirmations of notices, and
whatever else speaks to servers that somebody outside names. It decides and connects; what is said is the callers'.
"""
