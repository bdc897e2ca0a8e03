"""Other load balancers' configuration to documents of our catalog, with what could not be carried over named.

Pure: text in, documents out. Nothing is resolved, read or asked; what a converter would have to look up elsewhere
(an included file, a port's name) is given to it as a function. The only error raised is ``UnreadableInput``.
"""

from anycastlb.core.importers.documents import Documents, Note, UnreadableInput

__all__ = ["Documents", "Note", "UnreadableInput"]
